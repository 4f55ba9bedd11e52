"""What becomes of a message whose handler failed."""

from __future__ import annotations

import sys
from enum import Enum

from shared.errors.base import ConflictError, DomainError, InfrastructureError, RateLimitedError
from shared.errors.infrastructure import CircuitOpenError


class Outcome(Enum):
    """The end of one delivery of a message."""

    ACK = "ack"
    """Done; the message is never seen again."""
    RETRY = "retry"
    """Delivered again after a delay, as often as the subscriber's policy allows."""
    DEAD_LETTER = "dead_letter"
    """Stored as a dead letter, with the reason: another attempt cannot help."""


def outcome_of(error: BaseException) -> Outcome:
    """Say what becomes of the message whose handler raised ``error``.

    A conflict, a rate limit and an open circuit pass with time; what the content of the message
    causes does not. What nobody foresaw is tried again. A group is tried again if any of its
    errors is.

    >>> outcome_of(NotFoundError("No invoice 7"))
    <Outcome.DEAD_LETTER: 'dead_letter'>
    >>> outcome_of(DatabaseError("The database is away"))
    <Outcome.RETRY: 'retry'>
    """
    if isinstance(error, BaseExceptionGroup):
        outcomes = {outcome_of(part) for part in error.exceptions}
        return Outcome.RETRY if Outcome.RETRY in outcomes else Outcome.DEAD_LETTER
    if isinstance(error, ConflictError | RateLimitedError | CircuitOpenError):
        return Outcome.RETRY
    if isinstance(error, InfrastructureError):
        return Outcome.RETRY if error.retryable else Outcome.DEAD_LETTER
    if isinstance(error, DomainError) or _is_pydantic_error(error):
        return Outcome.DEAD_LETTER
    return Outcome.RETRY


def _is_pydantic_error(error: BaseException) -> bool:
    # What raised one has loaded pydantic; nobody else has to.
    pydantic_core = sys.modules.get("pydantic_core")
    return pydantic_core is not None and isinstance(error, pydantic_core.ValidationError)
