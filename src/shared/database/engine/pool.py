"""The connection pool, measured."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.pool import AsyncAdaptedQueuePool

from shared.metrics import (
    database_pool_connections,
    database_pool_limit,
    database_pool_wait_seconds,
)

if TYPE_CHECKING:
    import asyncpg
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry


_TRUSTED_SECONDS = 1.0


def measured_pool(service: str) -> type[AsyncAdaptedQueuePool]:
    """Return a pool class that observes how long its users wait for a connection."""
    waits = database_pool_wait_seconds.labels(service)

    class MeasuredPool(AsyncAdaptedQueuePool):
        def _do_get(self) -> ConnectionPoolEntry:
            began = time.perf_counter()
            try:
                return super()._do_get()
            finally:
                waits.observe(time.perf_counter() - began)

    return MeasuredPool


def watch_pool(engine: AsyncEngine, service: str, *, limit: int) -> None:
    """Count the connections of the engine's pool, and let its pre-ping ask no more than it has to.

    It asks only a connection that lay idle for a second, or that was closed. The question costs
    three round trips, more than most statements. A connection that the server or the network closed
    openly is known without asking: not by the driver, which hears of it when the event loop comes
    to read, but by the kernel at once. One that was lost in silence was lost while it rested.
    Any answer but yes has the connection replaced.
    """
    idle = database_pool_connections.labels(service, "idle")
    in_use = database_pool_connections.labels(service, "in_use")
    database_pool_limit.labels(service).set(limit)
    dialect = engine.sync_engine.dialect
    ask = dialect.do_ping
    errors = (dialect.loaded_dbapi.Error, OSError)
    returned_at: dict[int, float] = {}

    def opened(*_: object) -> None:
        idle.inc()

    def closed(connection: DBAPIConnection, *_: object) -> None:
        idle.dec()
        returned_at.pop(id(connection), None)

    def taken(*_: object) -> None:
        idle.dec()
        in_use.inc()

    # A connection that broke in use is closed first and given back afterwards: it adds up.
    def returned(connection: DBAPIConnection | None, *_: object) -> None:
        in_use.dec()
        idle.inc()
        if connection is not None:
            returned_at[id(connection)] = time.monotonic()

    def do_ping(connection: DBAPIConnection) -> bool:
        driver: asyncpg.Connection[asyncpg.Record] = connection.driver_connection
        if driver.is_closed():
            return False
        since = returned_at.get(id(connection))
        if since is not None and time.monotonic() - since < _TRUSTED_SECONDS and _is_quiet(driver):
            return True
        # SQLAlchemy would raise what it takes for no disconnection, such as the server's farewell
        # ("terminating connection") read before the end of the stream.
        try:
            return ask(connection)
        except errors:
            return False

    event.listen(engine.sync_engine, "connect", opened)
    event.listen(engine.sync_engine, "close", closed)
    event.listen(engine.sync_engine, "checkout", taken)
    event.listen(engine.sync_engine, "checkin", returned)
    vars(dialect)["do_ping"] = do_ping


def _is_quiet(driver: asyncpg.Connection[asyncpg.Record]) -> bool:
    """Whether nothing waits to be read: no farewell and no end of the stream."""
    socket = driver._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # noqa: SLF001
    if socket is None or socket.fileno() < 0:
        return False
    readable = select.poll()
    readable.register(socket.fileno(), select.POLLIN)
    return not readable.poll(0)
