import pytest

from shared.testing import eventually


async def test_what_comes_true_is_returned_and_errors_count_as_not_yet() -> None:
    answers = iter([ConnectionError("not up"), 0, "", "here"])

    async def ask() -> object:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await eventually(ask) == "here"
    counts = iter([0, 3])
    assert await eventually(lambda: next(counts)) == 3


async def test_what_never_comes_true_is_told_with_the_last_result_and_error() -> None:
    def refused() -> bool:
        raise ConnectionError("refused")

    with pytest.raises(TimeoutError, match=r"not within 0\.05 s: None") as told:
        await eventually(refused, timeout_seconds=0.05)
    assert isinstance(told.value.__cause__, ConnectionError)
    with pytest.raises(TimeoutError, match=r"not within 0\.05 s: \[\]"):
        await eventually(list, timeout_seconds=0.05)
