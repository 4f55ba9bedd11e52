"""One service's PostgreSQL: engine, transactions, raw connections."""

from __future__ import annotations

import logging
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import asyncpg
from pydantic_core import from_json, to_json
from sqlalchemy import URL, event, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from shared.database.pool import measure_pool, measured_pool
from shared.database.tenancy import TenantSession
from shared.database.translation import translate_errors
from shared.errors import DatabaseError
from shared.metrics import database_slow_queries_total

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from sqlalchemy import Connection
    from sqlalchemy.engine import ExecutionContext
    from sqlalchemy.pool import Pool

    from shared.config import DatabaseSettings

__all__ = ["Database"]

_logger = logging.getLogger(__name__)


class Database:
    """The database of one service, seen through its schema.

    ``search_path`` is the schema and nothing else, on every connection. No connection is opened
    before the first use, so a service starts while its database is still away. Every connection
    carries the statement, lock and idle-in-transaction timeouts of the settings, and the
    application name, so that PostgreSQL itself ends what hangs and ``pg_stat_activity`` says whose
    it is.

    Args:
        settings: where it is, who we are there, pool and timeouts.
        schema: by default ``settings.schema_name``, else ``public``.
        application_name: shown in ``pg_stat_activity`` and PostgreSQL's log.
        slow_query_seconds: statements that take this long are logged as warnings, without their
            parameters.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        schema: str | None = None,
        application_name: str = "glam",
        slow_query_seconds: float = 1.0,
    ) -> None:
        self.settings = settings
        self.schema = schema or settings.schema_name or "public"
        self.application_name = application_name
        self.url = URL.create(
            "postgresql+asyncpg",
            username=settings.user,
            host=settings.host,
            port=settings.port,
            database=settings.name,
        )
        self.engine = self.create_engine(
            poolclass=measured_pool(application_name),
            pool_size=settings.pool_size,
            max_overflow=settings.max_overflow,
            pool_pre_ping=settings.pool_pre_ping,
            pool_recycle=settings.pool_recycle_seconds,
            pool_timeout=settings.connect_timeout_seconds,
        )
        self.session_factory = async_sessionmaker(
            self.engine,
            expire_on_commit=False,
            sync_session_class=TenantSession,
            info={"cursor_secret": settings.cursor_secret},  # for the pages of repositories
        )
        measure_pool(
            self.engine, application_name, limit=settings.pool_size + settings.max_overflow
        )
        _log_slow_statements(self.engine, slow_query_seconds, application_name)

    def __repr__(self) -> str:
        return f"<Database {self.url} schema={self.schema}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction of its own: committed at the end, rolled back on an error.

        Nothing joins it; for that, see `shared.delivery.UnitOfWork`.

        Raises:
            DatabaseError: as `translate_errors`, which also guards the block.
        """
        with translate_errors():
            async with self.session_factory() as session:
                yield session
                await session.commit()

    async def ping(self) -> None:
        """Return when the database answers a query.

        Raises:
            DatabaseError: it does not.
        """
        with translate_errors("ping"):
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close the idle connections. Those in use close when they are given back."""
        await self.engine.dispose()

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """Open a connection of asyncpg outside of the pool; the caller closes it.

        Raises:
            DatabaseError: retryable when the server is away, otherwise (wrong password, no such
                database) not.
        """
        settings = self.settings
        try:
            return await asyncpg.connect(
                host=settings.host,
                port=settings.port,
                database=settings.name,
                user=settings.user,
                password=settings.password.get_secret_value() if settings.password else None,
                timeout=settings.connect_timeout_seconds,
                server_settings={
                    "application_name": self.application_name,
                    "search_path": _quoted(self.schema),
                    "statement_timeout": _milliseconds(settings.statement_timeout_seconds),
                    "lock_timeout": _milliseconds(settings.lock_timeout_seconds),
                    "idle_in_transaction_session_timeout": _milliseconds(
                        settings.idle_in_transaction_timeout_seconds
                    ),
                },
            )
        except (OSError, TimeoutError) as error:
            raise DatabaseError(
                f"cannot reach PostgreSQL at {settings.host}:{settings.port}: "
                f"{error or type(error).__name__}",
                operation="connect",
                retryable=True,
            ) from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError):
            with translate_errors("connect"):
                raise
            raise  # never reached; the gate has raised its own

    def create_engine(self, *, poolclass: type[Pool] | None = None, **options: Any) -> AsyncEngine:
        """Create another engine to the same place, e.g. without a pool; the caller closes it."""
        if poolclass is not None:
            options["poolclass"] = poolclass
        return create_async_engine(
            self.url,
            async_creator=self.connect,
            echo=self.settings.echo,
            hide_parameters=not self.settings.echo,
            json_serializer=_json,
            json_deserializer=from_json,
            **options,
        )


def _json(value: object) -> str:
    return to_json(value).decode()


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _log_slow_statements(engine: AsyncEngine, threshold_seconds: float, service: str) -> None:
    slow = database_slow_queries_total.labels(service)

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def started(
        _connection: Connection,
        _cursor: object,
        _statement: str,
        _parameters: object,
        context: ExecutionContext,
        _many: bool,
    ) -> None:
        context._glam_started = time.perf_counter()  # type: ignore[attr-defined] # noqa: SLF001

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def finished(
        _connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        context: ExecutionContext,
        _many: bool,
    ) -> None:
        seconds = time.perf_counter() - context._glam_started  # type: ignore[attr-defined] # noqa: SLF001
        if seconds >= threshold_seconds:
            slow.inc()
            _logger.warning(
                "slow statement",
                extra={"statement": statement, "duration_ms": round(seconds * 1000, 3)},
            )
