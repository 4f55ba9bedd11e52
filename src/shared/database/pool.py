"""The connection pool, measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import AsyncAdaptedQueuePool

from shared.metrics import (
    database_pool_connections,
    database_pool_limit,
    database_pool_wait_seconds,
)

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.ext.asyncio import AsyncEngine
    from sqlalchemy.pool import ConnectionPoolEntry

__all__ = ["measure_pool", "measured_pool", "ping_idle"]

_RETURNED = "glam.returned"
_IDLE_SECONDS = 1.0


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


def ping_idle(engine: AsyncEngine) -> None:
    """Ping a connection before it is handed out, unless it was in use a second ago.

    SQLAlchemy's own ``pool_pre_ping`` asks each time, which are three journeys to the server, as
    many as a small transaction takes. One whose socket is closed is not handed out either way.
    """
    dialect = engine.sync_engine.dialect

    @event.listens_for(engine.sync_engine, "checkin")
    def returned(_connection: object, entry: ConnectionPoolEntry) -> None:
        entry.info[_RETURNED] = time.monotonic()

    @event.listens_for(engine.sync_engine, "checkout")
    def ping(connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: object) -> None:
        since = entry.info.get(_RETURNED)
        if since is None:
            return  # it was opened just now
        if connection.driver_connection.is_closed():
            raise InvalidatePoolError
        if time.monotonic() - since < _IDLE_SECONDS:
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            if not dialect.is_disconnect(error, connection, None):
                raise
            raise InvalidatePoolError from error


def measure_pool(engine: AsyncEngine, service: str, *, limit: int) -> None:
    """Count the connections of the engine's pool, idle and in use."""
    idle = database_pool_connections.labels(service, "idle")
    in_use = database_pool_connections.labels(service, "in_use")
    database_pool_limit.labels(service).set(limit)

    def opened(*_: object) -> None:
        idle.inc()

    def closed(*_: object) -> None:
        idle.dec()

    def taken(*_: object) -> None:
        idle.dec()
        in_use.inc()

    # A connection that broke in use is closed first and given back afterwards: it adds up.
    def returned(*_: object) -> None:
        in_use.dec()
        idle.inc()

    for name, count in {
        "connect": opened,
        "close": closed,
        "checkout": taken,
        "checkin": returned,
    }.items():
        event.listen(engine.sync_engine, name, count)
