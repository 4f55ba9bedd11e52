"""The seam: what happens around a handler, step by step.

A step, the chassis' or a user's, is an async function of the delivery and of what comes after it:

    async def timed(delivery: Delivery, call_next: CallNext) -> None:
        began = time.perf_counter()
        await call_next(delivery)
        print(delivery.subject, time.perf_counter() - began)

Returning acknowledges the message; what is raised decides by the subscription's `RetryPolicy`. A
step that does not call `call_next` passes the message over. For a batch it is called once, with a
`Batch`: `delivery.deliveries` are the messages, for one that came alone as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic  # the clock of the event loop
from typing import TYPE_CHECKING, TypeAlias

from shared.errors import (
    InfrastructureError,
    Outcome,
    RequestTimeoutError,
    UpstreamServiceError,
)
from shared.messaging.consuming.delivery import Delivery
from shared.messaging.publishing.claim_check import CLAIM, resolve
from shared.resilience import Circuit
from shared.resilience.backoff import set_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.messaging.connection.connection import Connection
    from shared.messaging.consuming.metrics import SubscriberMetrics
    from shared.messaging.consuming.retry import RetryPolicy
    from shared.resilience import CircuitBreaker

CallNext: TypeAlias = Callable[[Delivery], Awaitable[None]]
Middleware: TypeAlias = Callable[[Delivery, CallNext], Awaitable[None]]
"""A step around a handler.

>>> async def skip_tests(delivery: Delivery, call_next: CallNext) -> None:
...     if "X-Test" not in delivery.headers:
...         await call_next(delivery)
>>> service = Service("till-service", middleware=[skip_tests])
"""

_logger = logging.getLogger(__name__)


def compose(steps: Sequence[Middleware], end: CallNext) -> CallNext:
    """Put steps together, once: the first is the outermost, `end` comes after the last."""
    for step in reversed(steps):
        end = _bound(step, end)
    return end


def _bound(step: Middleware, call_next: CallNext) -> CallNext:
    return lambda delivery: step(delivery, call_next)


class StoppedError(Exception):
    """Draining began before another attempt could."""


def is_outage(error: BaseException) -> bool:
    """Tell whether `error` says that a part every message needs is out, for a time."""
    return (
        isinstance(error, InfrastructureError)
        and error.retryable
        and not isinstance(error, UpstreamServiceError | RequestTimeoutError)
    )


class OutageStep:
    """Runs what follows again and again while an outage lasts: the attempt is not counted."""

    def __init__(
        self,
        retry: RetryPolicy,
        *,
        draining: asyncio.Event,
        noted: Callable[[BaseException], None],
    ) -> None:
        self._retry = retry
        self._draining = draining
        self._note = noted

    async def __call__(self, delivery: Delivery, call_next: CallNext) -> None:
        """Return once it went through.

        Raises:
            StoppedError: Draining began in a pause.
            Exception: Any other than an outage; or an outage that lasts longer than the policy's
                `outage_seconds`.
        """
        began, tries = monotonic(), 0
        while True:
            try:
                return await call_next(delivery)
            except Exception as error:
                self._note(error)
                tries += 1
                retry = self._retry
                over = monotonic() - began >= retry.outage_seconds
                if over or not is_outage(error) or retry.outcome(error) is not Outcome.RETRY:
                    raise
                _logger.warning("outage: %s", error, extra=delivery.log_fields)
            if await set_within(self._draining, retry.delay(tries)):
                raise StoppedError


class CircuitStep:
    """Lets a message through as soon as the circuit does, and tells it how that went."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self._breaker = breaker

    async def __call__(self, delivery: Delivery, call_next: CallNext) -> None:
        """Do what follows.

        Raises:
            StoppedError: Draining began while the circuit was open.
        """
        breaker = self._breaker
        if breaker.state is not Circuit.CLOSED and not await breaker.admission():
            raise StoppedError
        try:
            await call_next(delivery)
        except Exception as error:
            if is_outage(error):
                breaker.failed(error)
            else:
                breaker.succeeded()
            raise
        except BaseException:
            breaker.abandoned()
            raise
        breaker.succeeded()


class MetricsStep:
    """Measures what follows: an attempt."""

    def __init__(self, metrics: SubscriberMetrics) -> None:
        self._metrics = metrics

    async def __call__(self, delivery: Delivery, call_next: CallNext) -> None:
        """Do what follows, and write down how long it took."""
        deliveries = delivery.deliveries
        began = self._metrics.began(deliveries)
        try:
            await call_next(delivery)
        finally:
            self._metrics.ended(deliveries, began)


@dataclass(eq=False, slots=True)
class _Attempt:
    """A task under way; `expired` once it was cancelled for taking too long."""

    task: asyncio.Task[None]
    due: float
    expired: bool = False


class DeadlineStep:
    """Cancels what takes longer than `seconds`; None lets it take for ever.

    `asyncio.timeout` would set and take down a timer for each message. All attempts of a
    subscription have the same time, so the oldest is due first, and one timer serves them all.

    With or without a deadline, a handler that was cancelled from within has failed like any other:
    only a cancellation from outside is one.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._running: dict[_Attempt, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def __call__(self, delivery: Delivery, call_next: CallNext) -> None:
        """Do what follows.

        Raises:
            TimeoutError: It took too long.
            RuntimeError: Not we: it awaited something that was cancelled.
        """
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - a coroutine of asyncio runs in a task
            raise RuntimeError("messages are handled in tasks")
        cancelling = task.cancelling()
        attempt = None if self._seconds is None else self._begin(task, self._seconds)
        try:
            await call_next(delivery)
        except asyncio.CancelledError as error:
            expired = self._end(attempt)
            if task.cancelling() > cancelling:
                raise
            if expired:
                raise TimeoutError(f"attempt took longer than {self._seconds} s") from error
            raise RuntimeError("the handler was cancelled from within") from error
        except BaseException:
            self._end(attempt)
            raise
        else:
            self._end(attempt)

    def _begin(self, task: asyncio.Task[None], seconds: float) -> _Attempt:
        attempt = _Attempt(task, monotonic() + seconds)
        self._running[attempt] = None
        if self._timer is None:
            self._timer = task.get_loop().call_at(attempt.due, self._look)
        return attempt

    def _end(self, attempt: _Attempt | None) -> bool:
        """Take the deadline away again; a cancellation that was ours no longer counts as one."""
        if attempt is None:
            return False
        self._running.pop(attempt, None)
        if attempt.expired:
            attempt.task.uncancel()
        return attempt.expired

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for attempt in list(self._running):
            if attempt.due > now:
                self._timer = loop.call_at(attempt.due, self._look)
                return
            del self._running[attempt]
            attempt.expired = True
            attempt.task.cancel()


class ClaimCheckStep:
    """Collects bodies that were left at the object store."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __call__(self, delivery: Delivery, call_next: CallNext) -> None:
        """Hand the delivery on with its own body, wherever that lies.

        Raises:
            ClaimLostError, MessageBusError: As `resolve`.
        """
        for each in delivery.deliveries:
            if CLAIM in each.headers:
                whole = {d: await resolve(self._connection, d) for d in delivery.deliveries}
                delivery = delivery.map(whole.__getitem__)
                break
        await call_next(delivery)
