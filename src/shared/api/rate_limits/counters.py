"""How many calls were made of late: a sliding window counter, kept in this process.

The calls of the present window count whole; those of the one before count by the share of it that
the last `seconds` still reach. So a burst at the end of one window is not followed by another at
the beginning of the next, and a key costs a few numbers however many calls it stands for.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Counters", "Hit", "ProcessCounters"]

_FIRST_SWEEP = 1024


@dataclass(frozen=True, slots=True)
class Hit:
    """What became of one call.

    Attributes:
        allowed: it was within the limit, and is counted; a refused one is not.
        remaining: how many more calls there may be now.
        wait_seconds: when there may be one more than that; rounded up, at least 1.
    """

    allowed: bool
    remaining: int
    wait_seconds: int

    @classmethod
    def of(
        cls, *, allowed: bool, limit: int, seconds: int, previous: int, current: int, left: float
    ) -> Hit:
        """Reckon it from the calls of both windows and the seconds ``left`` of the present one."""
        share = math.floor(previous * left / seconds)
        wait = left - share * seconds / previous if share else left
        return cls(
            allowed=allowed,
            remaining=max(0, limit - current - share),
            wait_seconds=min(seconds, max(1, math.ceil(wait))),
        )


class Counters(Protocol):
    """Counts calls under keys."""

    async def hit(self, key: str, limit: int, seconds: int) -> Hit:
        """Count a call unless there were ``limit`` within the last ``seconds``.

        Raises:
            RedisError: nobody knows, since the storage does not answer.
        """

    async def close(self) -> None:
        """Let go of connections; a second call does nothing."""


@dataclass(slots=True)
class _Window:
    began: float
    seconds: int
    current: int = 0
    previous: int = 0

    def move(self, now: float) -> None:
        """Make the window that ``now`` lies in the present one."""
        passed = int((now - self.began) // self.seconds)
        if passed:
            self.previous = self.current if passed == 1 else 0
            self.current = 0
            self.began += passed * self.seconds

    def forgotten(self, now: float) -> bool:
        return now - self.began >= 2 * self.seconds


class ProcessCounters:
    """Counts in the memory of this process.

    What has passed is swept out when the keys have doubled, so a call costs the same however many
    callers there are. (The storage in memory of `limits` looks through all keys at every call.)
    """

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}
        self._sweep_at = _FIRST_SWEEP

    async def hit(self, key: str, limit: int, seconds: int) -> Hit:
        """Count a call unless there were ``limit`` within the last ``seconds``."""
        now = time.monotonic()
        window = self._windows.get(key)
        if window is None:
            self._sweep(now)
            window = self._windows[key] = _Window(now, seconds)
        window.move(now)
        left = seconds - (now - window.began)
        allowed = math.floor(window.previous * left / seconds) + window.current < limit
        if allowed:
            window.current += 1
        return Hit.of(
            allowed=allowed,
            limit=limit,
            seconds=seconds,
            previous=window.previous,
            current=window.current,
            left=left,
        )

    async def close(self) -> None:
        """Do nothing."""

    def _sweep(self, now: float) -> None:
        if len(self._windows) < self._sweep_at:
            return
        self._windows = {
            key: window for key, window in self._windows.items() if not window.forgotten(now)
        }
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._windows))
