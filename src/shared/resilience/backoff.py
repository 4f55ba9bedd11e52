"""How long to wait before another attempt."""

from __future__ import annotations

import asyncio
import random

# Beyond so many doublings every back-off is at its cap; the bound keeps the power finite.
_MOST_STEPS = 64


def backoff_seconds(
    attempt: int,
    *,
    first: float,
    longest: float,
    factor: float = 2.0,
    spread: tuple[float, float] = (1.0, 1.0),
) -> float:
    """Return the wait in seconds after an attempt that failed: longer each time, up to a cap.

    >>> [backoff_seconds(n, first=0.5, longest=5.0) for n in range(1, 6)]
    [0.5, 1.0, 2.0, 4.0, 5.0]

    Args:
        attempt: the one that failed, counted from 1.
        first: seconds after the first.
        longest: seconds at most, before the spread.
        factor: how much longer each wait is than the one before.
        spread: the wait is multiplied by a random number between the two, so that those who failed
            together do not come back together.
    """
    wait = min(first * factor ** min(max(attempt, 1) - 1, _MOST_STEPS), longest)
    low, high = spread
    return wait if low == high == 1.0 else wait * random.uniform(low, high)  # noqa: S311 - no secret


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for the event, and no longer than so; tell whether it is set."""
    # Not `wait_for`: before Python 3.12 it may swallow a cancellation.
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
