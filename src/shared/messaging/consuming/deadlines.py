"""Deadlines that all last the same, kept by one timer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic  # the clock of the event loop


@dataclass(eq=False, slots=True)
class Attempt:
    """A task under way; `expired` once it was cancelled for taking too long."""

    task: asyncio.Task[None]
    due: float
    expired: bool = False


class Deadlines:
    """Cancels tasks that take longer than `seconds`; None lets them take for ever.

    `asyncio.timeout` would set and take down a timer for each message. All attempts of a
    subscription have the same time, so the oldest is due first, and one timer serves them all.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._running: dict[Attempt, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, task: asyncio.Task[None]) -> Attempt | None:
        """Give a task its time; `end` has to follow."""
        if self.seconds is None:
            return None
        attempt = Attempt(task, monotonic() + self.seconds)
        self._running[attempt] = None
        if self._timer is None:
            self._timer = task.get_loop().call_at(attempt.due, self._look)
        return attempt

    def end(self, attempt: Attempt | None) -> None:
        """Take the deadline away again; a cancellation that was ours no longer counts as one."""
        if attempt is None:
            return
        self._running.pop(attempt, None)
        if attempt.expired:
            attempt.task.uncancel()

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
