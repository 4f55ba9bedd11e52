from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ConflictError, NotFoundError, Outcome, ValidationError
from shared.messaging import RetryPolicy


@given(
    attempt=st.integers(1, 10_000),
    first=st.floats(0, 100),
    extra=st.floats(0, 1000),
    factor=st.floats(1, 10),
    jitter=st.floats(0, 1),
)
def test_a_delay_stays_within_its_bounds(
    attempt: int, first: float, extra: float, factor: float, jitter: float
) -> None:
    longest = first + extra
    policy = RetryPolicy(
        first_delay_seconds=first, max_delay_seconds=longest, factor=factor, jitter=jitter
    )
    nominal = min(first * factor ** min(attempt - 1, 64), longest)
    delay = policy.delay(attempt)
    assert nominal * (1 - jitter) - 1e-6 <= delay <= nominal * (1 + jitter) + 1e-6


def test_without_jitter_it_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(jitter=0)
    assert [policy.delay(n) for n in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize(
    "numbers",
    [
        {"attempts": 0},
        {"first_delay_seconds": -1},
        {"first_delay_seconds": 2, "max_delay_seconds": 1},
        {"factor": 0.5},
        {"jitter": 1.5},
        {"outage_seconds": -1},
    ],
)
def test_numbers_that_make_no_policy_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        RetryPolicy(**numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (NotFoundError("not yet"), Outcome.RETRY),
        (ConflictError("never"), Outcome.DEAD_LETTER),
        (ValidationError("as ever"), Outcome.DEAD_LETTER),
        (ConnectionResetError(), Outcome.DEAD_LETTER),
        (ConnectionRefusedError(), Outcome.RETRY),
        (RuntimeError("as ever"), Outcome.RETRY),
        (ExceptionGroup("two", [ConflictError("never"), OSError()]), Outcome.DEAD_LETTER),
        (ExceptionGroup("two", [ConflictError("never"), NotFoundError("not yet")]), Outcome.RETRY),
    ],
)
def test_the_policy_says_which_errors_are_worth_it_and_the_nearest_kind_decides(
    error: Exception, outcome: Outcome
) -> None:
    policy = RetryPolicy(
        retry_on=(NotFoundError, ConnectionRefusedError), give_up_on=(ConflictError, OSError)
    )
    assert policy.outcome(error) is outcome
