"""The same counters in Redis, where all replicas count together. Needs ``glam-shared[redis]``."""

from __future__ import annotations

import asyncio

from limits.aio.storage import RedisStorage
from redis import exceptions
from redis.asyncio import ConnectionPool

from shared.api.rate_limits.counters import Hit
from shared.errors import RedisError

__all__ = ["RedisCounters"]


class RedisCounters:
    """Counts by the scripts that `limits` brings for Redis, each of them atomic.

    Nothing is connected before the first call. Keys begin with ``glam:`` and expire by themselves.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; a single server, or one address for
            several.
        timeout_seconds: how long a call may take, connecting included.

    Raises:
        ValueError: no such address.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._pool = ConnectionPool.from_url(url)
        self._storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix="glam",
            connection_pool=self._pool,  # type: ignore[arg-type] # limits types plain options only
        )

    async def hit(self, key: str, limit: int, seconds: int) -> Hit:
        """Count a call unless there were ``limit`` within the last ``seconds``.

        Raises:
            RedisError: no answer in time, or a bad one.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                allowed = await self._storage.acquire_sliding_window_entry(key, limit, seconds)
                previous, _, current, left = await self._storage.get_sliding_window(key, seconds)
        except (exceptions.RedisError, OSError) as error:
            raise RedisError("Redis does not count", operation="rate_limit") from error
        return Hit.of(
            allowed=allowed,
            limit=limit,
            seconds=seconds,
            previous=previous,
            current=current,
            left=max(0.0, left - seconds),  # a key lives until the end of the window after its own
        )

    async def close(self) -> None:
        """Close the connections; a second call does nothing."""
        await self._pool.aclose()
