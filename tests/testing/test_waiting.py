"""`eventually`: what it takes for yes, for not yet, and what it says in the end."""

from __future__ import annotations

import pytest

from shared.testing import eventually


async def test_it_returns_the_first_true_answer_of_a_function_or_of_what_it_awaits() -> None:
    answers = iter([0, "", None, 7])

    async def later() -> object:
        return next(answers)

    assert await eventually(later) == 7
    assert await eventually(lambda: [1]) == [1]


async def test_an_error_is_not_yet_and_the_last_one_is_the_cause_when_time_is_up() -> None:
    asked = 0

    def missing() -> bool:
        nonlocal asked
        asked += 1
        raise LookupError("nothing there")

    with pytest.raises(TimeoutError) as raised:
        await eventually(missing, within_seconds=0.05)
    assert isinstance(raised.value.__cause__, LookupError)
    assert asked > 1
