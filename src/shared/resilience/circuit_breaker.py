"""The circuit breaker: what is down is left alone for a while, then tried by one.

closed ── failures in a row ──▶ open ── pause ──▶ half open ── the one succeeds ──▶ closed
                                 ▲                   │
                                 └─── it fails ──────┘
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from shared.errors import CircuitOpenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_logger = logging.getLogger(__name__)


class Circuit(StrEnum):
    """How a circuit stands: `half_open` from the moment one may try until its verdict."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class CircuitStatus:
    """What a circuit is doing, for a health check."""

    service: str
    state: Circuit
    failures: int
    """Failed calls in a row."""
    open_until: datetime | None


class GuardedCall:
    """One call that was let through; cancelled, it ends without a verdict and says nothing."""

    __slots__ = ("fault", "healthy")

    def __init__(self) -> None:
        self.healthy: bool | None = None
        self.fault: BaseException | None = None

    def succeeded(self) -> None:
        """The service answered, be it with an error of the caller's."""
        self.healthy = True

    def failed(self, fault: BaseException | None = None) -> None:
        """The service could not be reached, or could not answer."""
        self.healthy = False
        self.fault = fault


class CircuitBreaker:
    """The circuit to one thing that may be down. It belongs to one event loop.

    Who has an answer to give at once guards a `call`, which is refused while the circuit is open.
    Who can wait asks for `admission`, and tells the verdict by `succeeded`, `failed` or
    `abandoned`.

    >>> circuit = CircuitBreaker("credit", failures=2, pause_seconds=lambda times: 10.0 * times)
    >>> for _ in range(2):
    ...     with circuit.call() as call:
    ...         call.failed()
    >>> circuit.state
    <Circuit.OPEN: 'open'>
    >>> with circuit.call():
    ...     pass
    CircuitOpenError: credit failed 2 times in a row and is left alone

    Args:
        name: what the circuit leads to, for log, errors and status.
        failures: so many in a row open the circuit.
        pause_seconds: how long it then stays open before one is let through; told how many times
            in a row it has opened, 1 for the first.
        on_change: told each new state; that a pause is over is told with the one who tries.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int,
        pause_seconds: Callable[[int], float],
        on_change: Callable[[Circuit], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._limit = failures
        self._pause_seconds = pause_seconds
        self._on_change = on_change
        self._clock = clock
        self._failures = 0
        self._trips = 0
        self._try_at: float | None = None
        self._open_until: datetime | None = None
        self._trying = False
        self._stopped = False
        self._changed = asyncio.Event()

    @property
    def state(self) -> Circuit:
        """How it stands at this moment."""
        if self._try_at is None:
            return Circuit.CLOSED
        over = self._trying or self._clock() >= self._try_at
        return Circuit.HALF_OPEN if over else Circuit.OPEN

    @property
    def status(self) -> CircuitStatus:
        """The state at this moment, and why."""
        return CircuitStatus(self.name, self.state, self._failures, self._open_until)

    @contextmanager
    def call(self) -> Iterator[GuardedCall]:
        """Let one call through, and take its verdict when the block ends.

        A call that began before the circuit changed is too old to change it again.

        Raises:
            CircuitOpenError: the circuit is open, or half open and another call is trying.
        """
        if not self._admits():
            raise self._refusal()
        era = self._changed
        call = GuardedCall()
        try:
            yield call
        finally:
            if era is not self._changed:
                pass
            elif call.healthy is None:
                self.abandoned()
            elif call.healthy:
                self.succeeded()
            else:
                self.failed(call.fault)

    async def admission(self) -> bool:
        """Wait until one may try: at once while closed, else one at a time.

        False is the answer to all who still wait after `stop`.
        """
        while self._try_at is not None:
            if self._stopped:
                return False
            if self._admits():
                return True
            changed = self._changed
            try:
                async with asyncio.timeout(None if self._trying else self._try_at - self._clock()):
                    await changed.wait()
            except TimeoutError:
                continue
        return True

    def stop(self) -> None:
        """Send those away who wait for admission."""
        self._stopped = True
        self._change()

    def succeeded(self) -> None:
        """Note that what the circuit leads to is there."""
        self._failures = 0
        if self._try_at is None:
            return
        self._trips = 0
        self._try_at = self._open_until = None
        self._trying = False
        _logger.info("circuit to %s closed", self.name)
        self._change()

    def failed(self, error: BaseException | None = None) -> None:
        """Note that it is not there."""
        self._failures += 1
        if self._try_at is None and self._failures < self._limit:
            return
        if self._try_at is not None and not self._trying:
            return  # begun before it opened
        self._trips += 1
        pause = self._pause_seconds(self._trips)
        self._try_at = self._clock() + pause
        self._open_until = datetime.now(UTC) + timedelta(seconds=pause)
        self._trying = False
        _logger.warning(
            "circuit to %s open after %d failures in a row; one tries again in %.1f s%s",
            self.name,
            self._failures,
            pause,
            f": {error}" if error is not None else "",
        )
        self._change()

    def abandoned(self) -> None:
        """Note that a try ended without a verdict; another may try at once."""
        if self._trying:
            self._trying = False
            self._change()

    def _admits(self) -> bool:
        state = self.state
        if state is Circuit.CLOSED:
            return True
        if state is Circuit.OPEN or self._trying:
            return False
        self._trying = True
        self._change()
        return True

    def _change(self) -> None:
        """Begin an era: tell the state, and wake those who wait."""
        self._on_change(self.state)
        self._changed.set()
        self._changed = asyncio.Event()

    def _refusal(self) -> CircuitOpenError:
        wait = 0.0 if self._try_at is None else self._try_at - self._clock()
        return CircuitOpenError(
            f"{self.name} failed {self._failures} times in a row and is left alone",
            service=self.name,
            service_name=self.name,
            failure_count=self._failures,
            open_until=self._open_until.isoformat() if self._open_until else None,
            retry_after=max(1, math.ceil(wait)),
        )
