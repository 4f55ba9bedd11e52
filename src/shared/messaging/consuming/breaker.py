"""A circuit breaker for a subscription: while a dependency is out, hardly anything is tried."""

from __future__ import annotations

import asyncio
import logging
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.messaging.consuming.retry import RetryPolicy

_logger = logging.getLogger(__name__)


class Circuit(StrEnum):
    """How a subscription stands to what its handler needs."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Opens after so many outages in a row, and lets one message try after each growing pause.

    closed ── outages in a row ──▶ open ── pause ──▶ half open ── the one succeeds ──▶ closed
                                    ▲                   │
                                    └─── it fails ──────┘

    The pauses are those of `retry`, one step for each failed try. It belongs to one event loop.

    Args:
        name: of the subscription, for the log.
        threshold: outages in a row that open it.
        on_change: told each new state.
    """

    def __init__(
        self,
        name: str,
        *,
        threshold: int,
        retry: RetryPolicy,
        on_change: Callable[[Circuit], None] = lambda _: None,
    ) -> None:
        self.state = Circuit.CLOSED
        self._name = name
        self._threshold = threshold
        self._retry = retry
        self._on_change = on_change
        self._failures = 0
        self._trips = 0
        self._try_at = 0.0
        self._stopped = False
        self._changed = asyncio.Event()

    async def admission(self) -> bool:
        """Wait until a message may be tried: at once while closed, else one at a time.

        False is the answer to all who still wait after `stop`.
        """
        while self.state is not Circuit.CLOSED:
            if self._stopped:
                return False
            pause = self._try_at - asyncio.get_running_loop().time()
            if self.state is Circuit.OPEN and pause <= 0:
                self._enter(Circuit.HALF_OPEN)
                return True
            changed = self._changed
            try:
                async with asyncio.timeout(pause if self.state is Circuit.OPEN else None):
                    await changed.wait()
            except TimeoutError:
                continue
        return True

    def stop(self) -> None:
        """Send those away who wait."""
        self._stopped = True
        self._changed.set()

    def succeeded(self) -> None:
        """Note that what the handler needs is there, whatever became of the message."""
        self._failures = 0
        if self.state is not Circuit.CLOSED:
            self._trips = 0
            _logger.info("%s: the outage is over, reading goes on", self._name)
            self._enter(Circuit.CLOSED)

    def failed(self, error: BaseException) -> None:
        """Note an outage."""
        self._failures += 1
        if self.state is Circuit.CLOSED and self._failures < self._threshold:
            return
        if self.state is Circuit.OPEN:
            return  # begun before it opened
        self._trips += 1
        pause = self._retry.delay(self._trips)
        self._try_at = asyncio.get_running_loop().time() + pause
        _logger.warning(
            "%s: outage, nothing is read; one message tries again in %.1f s: %s",
            self._name,
            pause,
            error,
        )
        self._enter(Circuit.OPEN)

    def abandoned(self) -> None:
        """Note that a try ended without a verdict; another message may try at once."""
        if self.state is Circuit.HALF_OPEN:
            self._enter(Circuit.OPEN)

    def _enter(self, state: Circuit) -> None:
        self.state = state
        self._on_change(state)
        self._changed.set()
        self._changed = asyncio.Event()
