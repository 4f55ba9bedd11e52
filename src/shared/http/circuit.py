"""The circuit breaker: a service that is down is left alone for a while, and asked by one call.

closed ── so many failures in a row ──▶ open ── time ──▶ half open ── one call succeeds ──▶ closed
                                         ▲                   │
                                         └─── it fails ──────┘
"""

from __future__ import annotations

import logging
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from shared.errors import CircuitOpenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

State = Literal["closed", "open", "half_open"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CircuitStatus:
    """What a circuit is doing, for a health check."""

    service: str
    state: State
    failures: int
    """Failed calls in a row."""
    open_until: datetime | None


class Call:
    """One call that was let through; cancelled, it ends without a verdict and says nothing."""

    __slots__ = ("healthy",)

    def __init__(self) -> None:
        self.healthy: bool | None = None

    def succeeded(self) -> None:
        """The service answered, be it with an error of the caller's."""
        self.healthy = True

    def failed(self) -> None:
        """The service could not be reached, or could not answer."""
        self.healthy = False


class CircuitBreaker:
    """The circuit to one service. It belongs to one event loop.

    Args:
        service: the called service.
        failures: so many failed calls in a row open the circuit.
        open_seconds: how long it stays open before one call is let through.
        on_change: told ``True`` when the circuit opens and ``False`` when it closes.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        service: str,
        *,
        failures: int = 5,
        open_seconds: float = 10.0,
        on_change: Callable[[bool], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self._limit = failures
        self._open_seconds = open_seconds
        self._on_change = on_change
        self._clock = clock
        self._failures = 0
        self._opens_again: float | None = None
        self._open_until: datetime | None = None
        self._probing = False
        self._era = 0

    @property
    def state(self) -> State:
        """`half_open` from the moment one call may try until its verdict."""
        if self._opens_again is None:
            return "closed"
        return "open" if self._clock() < self._opens_again else "half_open"

    @property
    def status(self) -> CircuitStatus:
        """The state at this moment."""
        return CircuitStatus(self.service, self.state, self._failures, self._open_until)

    @contextmanager
    def call(self) -> Iterator[Call]:
        """Let one call through, and take its verdict when the block ends.

        A call that began before the circuit changed is too old to change it again.

        Raises:
            CircuitOpenError: the circuit is open, or half open and another call is trying.
        """
        state = self.state
        if state == "open" or self._probing:
            raise self._refusal()
        self._probing = state == "half_open"
        era = self._era
        call = Call()
        try:
            yield call
        finally:
            if era == self._era:
                self._settle(healthy=call.healthy)

    def _settle(self, *, healthy: bool | None) -> None:
        self._probing = False
        if healthy is None:
            return
        if healthy:
            self._failures = 0
            if self._opens_again is not None:
                self._close()
            return
        self._failures += 1
        if self._opens_again is not None or self._failures >= self._limit:
            self._open()

    def _open(self) -> None:
        self._era += 1
        self._opens_again = self._clock() + self._open_seconds
        self._open_until = datetime.now(UTC) + timedelta(seconds=self._open_seconds)
        _logger.warning(
            "circuit to %s open after %d failures in a row", self.service, self._failures
        )
        if self._on_change is not None:
            self._on_change(True)

    def _close(self) -> None:
        self._era += 1
        self._opens_again = self._open_until = None
        _logger.info("circuit to %s closed", self.service)
        if self._on_change is not None:
            self._on_change(False)

    def _refusal(self) -> CircuitOpenError:
        wait = 0.0 if self._opens_again is None else self._opens_again - self._clock()
        return CircuitOpenError(
            f"{self.service} failed {self._failures} times in a row and is left alone",
            service=self.service,
            service_name=self.service,
            failure_count=self._failures,
            open_until=self._open_until.isoformat() if self._open_until else None,
            retry_after=max(1, math.ceil(wait)),
        )
