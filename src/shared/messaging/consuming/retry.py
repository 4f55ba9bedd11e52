"""When a failed message is tried again."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import Outcome, outcome_of
from shared.resilience import backoff_seconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which pauses, a message is handed to its handler.

    `attempts` counts deliveries, the first included, and the server does the counting, so the
    number holds across replicas and restarts. The pause doubles (`factor`) from
    `first_delay_seconds` up to `max_delay_seconds`; `jitter` spreads it by that share either way.

    An outage of what every message needs (the database, the bus) is not the message's fault: such
    an attempt stays open and is run again in its place, for at most `outage_seconds`, before it
    counts as failed.

    A pause of `long_wait_seconds` or more is spent outside of the consumer, as a message schedule
    of the stream (servers from 2.12 on; before that, inside), so that waiting messages do not keep
    the server from delivering others.

    Which errors are worth another attempt, `shared.errors.outcome_of` says, unless the policy does:
    after one of `give_up_on` the message is a dead letter at once, after one of `retry_on` it is
    tried again. If an error is of both, the kind that is nearer to its own decides.

    >>> policy = RetryPolicy(attempts=4, jitter=0, give_up_on=(KeyError,))
    >>> [policy.delay(attempt) for attempt in (1, 2, 3)]
    [1.0, 2.0, 4.0]
    >>> policy.outcome(KeyError("number")), policy.outcome(OSError())
    (<Outcome.DEAD_LETTER: 'dead_letter'>, <Outcome.RETRY: 'retry'>)

    Raises:
        ValueError: A number is out of its bounds.
    """

    attempts: int = 5
    first_delay_seconds: float = 1.0
    factor: float = 2.0
    max_delay_seconds: float = 60.0
    jitter: float = 0.2
    outage_seconds: float = 3600.0
    long_wait_seconds: float = 60.0
    retry_on: tuple[type[BaseException], ...] = ()
    give_up_on: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}: it must be 1 or more")
        if not 0 <= self.first_delay_seconds <= self.max_delay_seconds:
            raise ValueError(
                f"first_delay_seconds is {self.first_delay_seconds}: it must be between 0 and "
                f"max_delay_seconds, {self.max_delay_seconds}"
            )
        if self.factor < 1:
            raise ValueError(f"factor is {self.factor}: it must be 1 or more")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is {self.jitter}: it must be between 0 and 1")
        if self.outage_seconds < 0:
            raise ValueError(f"outage_seconds is {self.outage_seconds}: it must be 0 or more")
        if self.long_wait_seconds <= 0:
            raise ValueError(f"long_wait_seconds is {self.long_wait_seconds}: it must be above 0")

    def outcome(self, error: BaseException) -> Outcome:
        """Return what becomes of the message whose handler raised `error`, attempts left."""
        if self.retry_on or self.give_up_on:
            for kind in type(error).__mro__:
                if kind in self.give_up_on:
                    return Outcome.DEAD_LETTER
                if kind in self.retry_on:
                    return Outcome.RETRY
            if isinstance(error, BaseExceptionGroup):
                outcomes = {self.outcome(part) for part in error.exceptions}
                return Outcome.RETRY if Outcome.RETRY in outcomes else Outcome.DEAD_LETTER
        return outcome_of(error)

    def delay(self, attempt: int) -> float:
        """Return the pause in seconds after the failed `attempt` (1 is the first)."""
        return self._after(attempt, spread=(1 - self.jitter, 1 + self.jitter))

    def pause(self, attempt: int) -> float:
        """Return the pause in seconds after the failed `attempt`, before `jitter` spreads it."""
        return self._after(attempt)

    def _after(self, attempt: int, spread: tuple[float, float] = (1.0, 1.0)) -> float:
        return backoff_seconds(
            attempt,
            first=self.first_delay_seconds,
            longest=self.max_delay_seconds,
            factor=self.factor,
            spread=spread,
        )
