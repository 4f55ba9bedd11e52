"""One service's PostgreSQL: engine, transactions, raw connections."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from pydantic_core import from_json, to_json
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.util import greenlet_spawn

from shared.config import ConfigError, Mistake, host_and_port
from shared.database.engine.connector import Connector, password_from
from shared.database.engine.pool import measured_pool, watch_pool
from shared.database.engine.replicas import Replica, Replicas, ReplicaStatus
from shared.database.engine.session import RoutedSession
from shared.database.engine.slow_queries import SlowQueries
from shared.database.engine.statements import quoted_name
from shared.database.engine.transactions import CommitMark, TransactionWatcher
from shared.database.engine.translation import translate_errors
from shared.database.tenancy.row_security import ROW_SECURITY, RowSecurity
from shared.database.tenancy.scopes import has_scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from types import TracebackType

    import asyncpg
    from sqlalchemy import Engine
    from sqlalchemy.pool import Pool

    from shared.config import DatabaseSettings
    from shared.database.engine.connector import PasswordProvider


class Database:
    """The database of one service, seen through its schema.

    ``search_path`` is the schema and nothing else, on every connection. No connection is opened
    before the first use, so a service starts while its database is still away. Every connection
    carries the statement, lock and idle-in-transaction timeouts of the settings, and the
    application name, so that PostgreSQL itself ends what hangs and ``pg_stat_activity`` says whose
    it is.

    >>> async with Database(settings, schema="shop") as shop:
    ...     await shop.ping()

    Args:
        settings: where it is, who we are there, pool and timeouts.
        schema: by default ``settings.schema_name``, else ``public``.
        application_name: shown in ``pg_stat_activity`` and PostgreSQL's log.
        slow_query_seconds: in place of ``settings.slow_query_seconds``.
        password: in place of the settings' password: a function, async or not, that returns it and
            is asked for each new connection, such as a call to a secret store.
    """

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        schema: str | None = None,
        application_name: str = "glam",
        slow_query_seconds: float | None = None,
        password: PasswordProvider | None = None,
    ) -> None:
        self.settings = settings
        self.schema = schema or settings.schema_name or "public"
        self.application_name = application_name
        self._password = password or password_from(settings.password, settings.password_file)
        self._connector = self._connector_to(settings.host, settings.port)
        self._slow_queries = SlowQueries(
            application_name,
            threshold_seconds=(
                settings.slow_query_seconds if slow_query_seconds is None else slow_query_seconds
            ),
            connect=self.connect if settings.slow_query_plan else None,
        )
        self._transactions = TransactionWatcher(
            application_name,
            settings=self._session_settings if settings.pgbouncer else {},
            idle_warning_seconds=settings.idle_warning_seconds,
            slow_queries=self._slow_queries,
        )
        self.url = self._connector.url
        self._engines: list[tuple[AsyncEngine, Connector]] = []
        self._watchers: list[Callable[[Engine, str, int], None]] = []
        self.engine = self._pooled(self._connector, application_name)
        autocommit = self.engine.sync_engine.execution_options(isolation_level="AUTOCOMMIT")
        self._autocommit_engine = None if settings.pgbouncer else autocommit
        self._system_engine: AsyncEngine | None = None
        self._replicas = Replicas(
            [self._replica(address) for address in settings.replicas], service=application_name
        )
        self.session_factory = async_sessionmaker(
            self.engine,
            expire_on_commit=False,
            info={  # for repositories, which know the factory alone
                "cursor_secret": settings.cursor_secret,
                "autocommit_engine": self.autocommit_engine,
            },
            sync_session_class=RoutedSession,
            system_engine=self._enter_system,
        )

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

    def session(
        self,
        *,
        read_only: bool = False,
        isolation: Isolation | None = None,
        replica: bool = True,
        mark: CommitMark | None = None,
    ) -> AsyncSession:
        """Make a session; it takes no connection before its first statement.

        Args:
            read_only: PostgreSQL refuses writes. Where there are standbys, one of them answers, if
                any is there and near enough; else the primary. A standby may not show yet what
                was just committed.
            isolation: of its transactions; PostgreSQL's default is ``read committed``.
            replica: False reads from the primary, and so what was just committed.
            mark: is told when COMMIT is sent.
        """
        options: dict[str, object] = {} if mark is None else {"glam_commit": mark}
        if isolation is not None:
            options["isolation_level"] = _isolation_level(isolation)
        if read_only:
            options["postgresql_readonly"] = True
        # A standby cannot do it: PostgreSQL manual, 26.4.2.
        standby = read_only and replica and bool(self._replicas) and isolation != "serializable"
        return self.session_factory(
            execution_options=options, replicas=self._replicas if standby else None
        )

    def autocommit_engine(self) -> Engine | None:
        """Return the engine whose statements commit by themselves: the autocommit path.

        None where a transaction has to be told something first: the tenant of this task, or behind
        a pooler its settings.
        """
        return None if has_scope() else self._autocommit_engine

    @asynccontextmanager
    async def transaction(
        self,
        *,
        read_only: bool = False,
        isolation: Isolation | None = None,
        replica: bool = True,
    ) -> AsyncIterator[AsyncSession]:
        """Open a transaction of its own: committed at the end, rolled back on an error.

        Nothing joins it; for that, see `shared.delivery.UnitOfWork`. Arguments as of `session`.

        >>> async with database.transaction() as session:
        ...     session.add(Order(number="1001", total=Money(5, "EUR")))
        >>> await orders.count(number="1001")
        1

        Raises:
            DatabaseError: as `translate_errors`, which also guards the block.
        """
        with translate_errors():
            async with self.session(
                read_only=read_only, isolation=isolation, replica=replica
            ) as session:
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

    async def replicas(self) -> tuple[ReplicaStatus, ...]:
        """Ask the standbys how far behind they are, each once a second at most."""
        return await greenlet_spawn(self._replicas.check)

    async def row_security(self) -> RowSecurity:
        """Tell whether row-level security binds the role we are.

        Raises:
            DatabaseError: the database is away.
        """
        with translate_errors("row security"):
            async with self.engine.connect() as connection:
                return RowSecurity(*(await connection.execute(ROW_SECURITY)).one())

    async def close(self) -> None:
        """Close the idle connections. Those in use close when they are given back."""
        await self._slow_queries.close()
        await self._replicas.close()
        if self._system_engine is not None:
            await self._system_engine.dispose()
        await self.engine.dispose()

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """Open a connection of asyncpg outside of the pool; the caller closes it.

        Raises:
            DatabaseError: retryable when the server is away, otherwise (wrong password, no such
                database) not.
        """
        return await self._connector.connect()

    def create_engine(self, *, poolclass: type[Pool] | None = None, **options: Any) -> AsyncEngine:
        """Create another engine to the same place, e.g. without a pool; the caller closes it."""
        return self._engine(self._connector, poolclass=poolclass, **options)

    def watch_engines(self, watch: Callable[[Engine, str, int], None]) -> None:
        """Call ``watch`` with each engine, its host and its port.

        They are the primary's, those of the standbys, and that of the role across tenants as
        soon as there is one: what listens to statements hears all of them.
        """
        self._watchers.append(watch)
        for engine, connector in self._engines:
            watch(engine.sync_engine, connector.host, connector.port)

    def _enter_system(self) -> Engine:
        """The engine of the role across tenants, made when it is first needed."""
        settings = self.settings
        if self._system_engine is None:
            if settings.system_user is None:
                raise ConfigError(
                    "system_scope",
                    [
                        Mistake(
                            "database.system_user",
                            "not set: work across tenants needs a role with BYPASSRLS",
                        )
                    ],
                )
            connector = self._connector_to(
                settings.host,
                settings.port,
                user=settings.system_user,
                password=password_from(settings.system_password, settings.system_password_file),
            )
            self._system_engine = self._pooled(connector, f"{self.application_name}:system")
        return self._system_engine.sync_engine

    def _replica(self, address: str) -> Replica:
        host, port = host_and_port(address)
        connector = self._connector_to(host, port or self.settings.port)
        return Replica(
            address,
            self._pooled(connector, f"{self.application_name}:{address}"),
            service=self.application_name,
            max_lag_seconds=self.settings.replica_max_lag_seconds,
        )

    def _connector_to(
        self,
        host: str,
        port: int,
        *,
        user: str | None = None,
        password: PasswordProvider | str | None = None,
    ) -> Connector:
        return Connector(
            self.settings,
            host=host,
            port=port,
            user=user or self.settings.user,
            password=self._password if user is None else password,
            application_name=self.application_name,
            session_settings=self._session_settings,
        )

    @property
    def _session_settings(self) -> dict[str, str]:
        settings = self.settings
        return {
            "search_path": quoted_name(self.schema),
            "statement_timeout": _milliseconds(settings.statement_timeout_seconds),
            "lock_timeout": _milliseconds(settings.lock_timeout_seconds),
            "idle_in_transaction_session_timeout": _milliseconds(
                settings.idle_in_transaction_timeout_seconds
            ),
        }

    def _pooled(self, connector: Connector, name: str) -> AsyncEngine:
        """An engine with a pool that is measured, and with all that watches its transactions."""
        settings = self.settings
        engine = self._engine(
            connector,
            poolclass=measured_pool(name),
            pool_size=settings.pool_size,
            max_overflow=settings.max_overflow,
            pool_pre_ping=settings.pool_pre_ping,
            pool_recycle=settings.pool_recycle_seconds,
            pool_timeout=settings.connect_timeout_seconds,
        )
        watch_pool(engine, name, limit=settings.pool_size + settings.max_overflow)
        self._transactions.watch(engine.sync_engine)
        self._engines.append((engine, connector))
        for watch in self._watchers:
            watch(engine.sync_engine, connector.host, connector.port)
        return engine

    def _engine(self, connector: Connector, **options: Any) -> AsyncEngine:
        engine = create_async_engine(
            connector.url,
            echo=self.settings.echo,
            hide_parameters=not self.settings.echo,
            json_serializer=_json,
            json_deserializer=from_json,
            **{name: value for name, value in options.items() if value is not None},
        )
        pgbouncer = self.settings.pgbouncer

        @event.listens_for(engine.sync_engine, "do_connect")
        def connect(_dialect: object, _record: object, _args: object, options: Any) -> None:
            options.clear()
            options["async_creator_fn"] = connector.connect
            if pgbouncer:  # the next transaction may have another server connection
                options["prepared_statement_cache_size"] = 0
                options["prepared_statement_name_func"] = _nameless

        return engine


Isolation: TypeAlias = Literal["read committed", "repeatable read", "serializable"]


def _isolation_level(isolation: str) -> str:
    if isolation not in get_args(Isolation):
        known = ", ".join(get_args(Isolation))
        raise ValueError(f"{isolation!r} is not an isolation level; there are {known}")
    return isolation.upper()


def _nameless() -> str:
    return ""


def _json(value: object) -> str:
    return to_json(value).decode()


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
