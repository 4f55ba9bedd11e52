from __future__ import annotations

import pydantic
import pytest

from shared.errors import (
    CircuitOpenError,
    ConflictError,
    DatabaseError,
    DomainError,
    GlamBaseError,
    InternalError,
    NotFoundError,
    Outcome,
    RateLimitedError,
    SyncInProgressError,
    UnauthorizedError,
    ValidationError,
    outcome_of,
)


def pydantic_error() -> pydantic.ValidationError:
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(int).validate_python("x")
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        ConflictError("Busy"),
        SyncInProgressError(),
        RateLimitedError(),
        DatabaseError("Down"),
        CircuitOpenError("Open"),
        GlamBaseError("Who knows"),
        InternalError(),
        KeyError("x"),
        TimeoutError(),
        ExceptionGroup("two", [ValidationError("Bad"), DatabaseError("Down")]),
        BaseExceptionGroup("stopped", [KeyboardInterrupt()]),
    ],
    ids=repr,
)
def test_what_may_pass_is_tried_again(error: BaseException) -> None:
    assert outcome_of(error) is Outcome.RETRY


@pytest.mark.parametrize(
    "error",
    [
        pydantic_error(),
        DomainError("No"),
        ValidationError("Bad"),
        NotFoundError("Gone"),
        UnauthorizedError(),
        DatabaseError("No such table", retryable=False),
        ExceptionGroup("two", [ValidationError("Bad"), ExceptionGroup("in", [DomainError("No")])]),
    ],
    ids=repr,
)
def test_what_stays_wrong_is_put_aside(error: BaseException) -> None:
    assert outcome_of(error) is Outcome.DEAD_LETTER
