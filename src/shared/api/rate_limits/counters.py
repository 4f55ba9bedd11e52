"""How many calls were made of late: the sliding window counter of `limits`.

The calls of the present window count whole; those of the one before count by the share of it that
the window's length still reaches. So a burst at the end of one window is not followed by another at
the beginning of the next, and a key costs a few numbers however many calls it stands for.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, NamedTuple

from limits.aio.storage import MemoryStorage, RedisStorage
from limits.errors import StorageError

from shared.errors import RedisError, missing_extra

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

    from shared.config import RateLimitSettings


_FIRST_SWEEP = 1024


class Hit(NamedTuple):
    """What became of one call."""

    allowed: bool
    """It was within the limit, and is counted; a refused one is not."""

    remaining: int
    """How many more calls there may be now."""

    wait_seconds: int
    """When there may be one more than that; rounded up, at least 1."""


class Counters:
    """Counts calls, in this process or in Redis, where all replicas count together.

    Nothing is connected before the first call. Keys in Redis begin with ``glam:`` and expire by
    themselves.

    Raises:
        MissingExtraError: a ``storage_url`` without ``glam-shared[redis]``.
        ValueError: a ``storage_url`` that is none.
    """

    def __init__(self, settings: RateLimitSettings) -> None:
        self._pool: ConnectionPool | None = None
        self._timeout_seconds: float | None = None
        if settings.storage_url is None:
            self._storage: MemoryStorage | RedisStorage = ProcessStorage()
            return
        try:
            from redis.asyncio import ConnectionPool  # noqa: PLC0415 - an extra
        except ImportError as cause:
            raise missing_extra("redis", cause) from cause
        self._timeout_seconds = settings.storage_timeout_seconds
        self._pool = ConnectionPool.from_url(settings.storage_url.get_secret_value())
        self._storage = RedisStorage(
            "async+redis://",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix="glam",
            connection_pool=self._pool,  # type: ignore[arg-type] # limits types plain options only
        )

    async def hit(self, key: str, limit: int, seconds: int) -> Hit:
        """Count a call unless there were ``limit`` within the last ``seconds``.

        Raises:
            RedisError: Redis gave no answer in time, or an error; the call may be counted or not.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                allowed = await self._storage.acquire_sliding_window_entry(key, limit, seconds)
                window = await self._storage.get_sliding_window(key, seconds)
        except (StorageError, OSError) as error:
            raise RedisError("Redis did not count the call", operation="rate_limit") from error
        # Not by the strategy's own statistics: in a window's first moment they tell no wait at all.
        previous, previous_left, current, left = window
        share = math.floor(previous * previous_left / seconds)
        wait = previous_left - share * seconds / previous if share else left - seconds
        remaining = max(0, limit - current - share)
        return Hit(allowed, remaining, min(seconds, max(1, math.ceil(wait))))

    async def close(self) -> None:
        """Close the connections; a second call does nothing."""
        if self._pool is not None:
            await self._pool.aclose()


class ProcessStorage(MemoryStorage):
    """Counts in the memory of this process.

    What has passed is swept out when the keys have doubled, so a call costs the same however many
    callers there are. (The storage this one is made of looks through all keys at every call.)
    """

    def __init__(self) -> None:
        super().__init__()
        self._sweep_at = _FIRST_SWEEP

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count in a key, which is forgotten after ``expiry`` seconds."""
        now = time.time()
        if len(self.expirations) >= self._sweep_at:
            for each in [each for each, end in self.expirations.items() if end <= now]:
                await self.clear(each)
            self._sweep_at = max(_FIRST_SWEEP, 2 * len(self.expirations))
        counted = self.storage[key] = await self.get(key) + amount
        if counted == amount:
            self.expirations[key] = now + expiry
        return counted
