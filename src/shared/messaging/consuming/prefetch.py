"""The prefetch queue: messages that were fetched and wait to begin, in their turn or in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.messaging.consuming.in_flight import InFlightMessage
    from shared.messaging.consuming.subscription import BatchPolicy


class InTurn:
    """Messages one by one, as they came."""

    def __init__(self) -> None:
        self._waiting: deque[InFlightMessage] = deque()

    def add(self, message: InFlightMessage) -> None:
        """Take a message in."""
        self._waiting.append(message)

    def __len__(self) -> int:
        """How many messages wait to begin."""
        return len(self._waiting)

    def take(self, *, at_once: bool) -> list[InFlightMessage]:
        """Return the next message; nothing if there is none."""
        del at_once
        return [self._waiting.popleft()] if self._waiting else []


class Batched:
    """Messages in batches: as soon as there are enough, or the first has waited long enough.

    Args:
        policy: how many, how long.
        ready: called when a batch became ready by waiting.
    """

    def __init__(self, policy: BatchPolicy, *, ready: Callable[[], None]) -> None:
        self._policy = policy
        self._ready = ready
        self._waiting: deque[InFlightMessage] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, message: InFlightMessage) -> None:
        """Take a message in."""
        self._waiting.append(message)

    def __len__(self) -> int:
        """How many messages wait to begin."""
        return len(self._waiting)

    def take(self, *, at_once: bool) -> list[InFlightMessage]:
        """Return the next batch; nothing if it is to wait for more, unless `at_once`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, size = self._waiting, self._policy.size
        if not waiting:
            return []
        loop = asyncio.get_running_loop()
        due = waiting[0].arrived_at + self._policy.wait_seconds
        if len(waiting) < size and loop.time() < due and not at_once:
            self._timer = loop.call_at(due, self._ready)
            return []
        return [waiting.popleft() for _ in range(min(size, len(waiting)))]
