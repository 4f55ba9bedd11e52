"""One table of orders in PostgreSQL: inserting a row, getting it, many rows, and far pages.

Sixteen tasks share a pool of sixteen connections, one pool for each contender. What makes the
comparison unfair:

- The server shares the machine. Its CPU time is not in the figures, but waiting for it is.
- Our pool asks each connection whether it still lives before it is handed out, as a service's does
  by default, and notices slow statements. The others do neither.
- asyncpg returns tuples, Core rows; the ORM, advanced-alchemy and we return instances.
- Core and asyncpg are measured at their best: a statement that commits by itself, no BEGIN. Core
  as the manual shows it, in a transaction, is measured beside.
- COPY returns no rows, `add_all` leaves the instances in the session.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import MetaData, bindparam, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from shared.config import DatabaseSettings
from shared.context.identifiers import uuid7
from shared.database import Base, Database, Repository, TimestampedMixin, UUIDv7Mixin
from shared.dev import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.harness import Bench, Run

_TASKS = 16
_OPERATIONS = 2_000
_ROWS = 10_000
_PAGE = 50
_DEPTHS = (0, 10_000, 100_000)
_SMOKE_DEPTHS = (0, 20)
_SECRET = "the secret of the benchmarks"  # noqa: S105


class _BenchBase(Base):
    __abstract__ = True
    metadata = MetaData()


class BenchOrder(_BenchBase, UUIDv7Mixin, TimestampedMixin):
    """A row of a plausible width."""

    __tablename__ = "orders"

    number: Mapped[str]
    customer: Mapped[str]
    total: Mapped[int]
    note: Mapped[str | None] = mapped_column(default=None)


class _Peer(SQLAlchemyAsyncRepository[BenchOrder]):
    model_type = BenchOrder


def _values() -> dict[str, object]:
    return {"id": uuid7(), "number": "#1042", "customer": "ada@example.com", "total": 1250}


async def postgres(bench: Bench) -> None:
    """Compare inserting and getting rows one by one, many at once, and pages far down a list."""
    async with PostgresServer() as server:
        found = await server.create_database("benchmarks")
        settings = DatabaseSettings.model_validate(
            found.model_dump() | {"pool_size": _TASKS, "max_overflow": 0, "cursor_secret": _SECRET}
        )
        where = f"{settings.user}@{settings.host}:{settings.port}/{settings.name}"
        engine = create_async_engine(
            f"postgresql+asyncpg://{where}", pool_size=_TASKS, max_overflow=0
        )
        pool = await asyncpg.create_pool(f"postgresql://{where}", min_size=_TASKS, max_size=_TASKS)
        async with Database(settings, application_name="benchmarks") as database, pool:
            async with database.engine.begin() as connection:
                await connection.run_sync(_BenchBase.metadata.create_all)
            await _one_by_one(bench, database, engine, pool)
            await _many(bench, database, engine)
            await _pages(bench, database)
        await engine.dispose()


async def _one_by_one(
    bench: Bench, database: Database, engine: AsyncEngine, pool: asyncpg.Pool[asyncpg.Record]
) -> None:
    orders = Repository(BenchOrder, database.session_factory)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    at_once = engine.execution_options(isolation_level="AUTOCOMMIT")
    table = BenchOrder.__table__
    returning = insert(BenchOrder).returning(*table.c)
    by_id = select(*table.c).where(table.c.id == bindparam("key"))
    kept = (await orders.save(BenchOrder(**_values()))).id

    async def core_insert(engine: AsyncEngine) -> None:
        async with engine.begin() as connection:
            (await connection.execute(returning, _values())).one()

    async def orm_insert() -> None:
        async with sessions.begin() as session:
            session.add(BenchOrder(**_values()))

    async def peer_insert() -> None:
        async with sessions() as session:
            await _Peer(session=session).add(BenchOrder(**_values()), auto_commit=True)

    async def asyncpg_insert() -> None:
        await pool.fetchrow(
            "INSERT INTO orders (id, number, customer, total) VALUES ($1, $2, $3, $4) RETURNING *",
            *_values().values(),
        )

    await bench.compare(
        "postgres: insert a row",
        _OPERATIONS,
        {
            "shared: Repository.save": _by_tasks(lambda: orders.save(BenchOrder(**_values()))),
            "asyncpg": _by_tasks(asyncpg_insert),
            "Core, autocommit": _by_tasks(lambda: core_insert(at_once)),
            "Core, transaction": _by_tasks(lambda: core_insert(engine)),
            "ORM session": _by_tasks(orm_insert),
            "advanced-alchemy": _by_tasks(peer_insert),
        },
    )

    async def core_get(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            (await connection.execute(by_id, {"key": kept})).one()

    async def orm_get() -> None:
        async with sessions() as session:
            await session.get(BenchOrder, kept)

    async def peer_get() -> None:
        async with sessions() as session:
            await _Peer(session=session).get(kept)

    await bench.compare(
        "postgres: get a row by its key",
        _OPERATIONS,
        {
            "shared: Repository.get": _by_tasks(lambda: orders.get(kept)),
            "asyncpg": _by_tasks(lambda: pool.fetchrow("SELECT * FROM orders WHERE id = $1", kept)),
            "Core, autocommit": _by_tasks(lambda: core_get(at_once)),
            "Core, transaction": _by_tasks(lambda: core_get(engine)),
            "ORM session": _by_tasks(orm_get),
            "advanced-alchemy": _by_tasks(peer_get),
        },
    )


async def _many(bench: Bench, database: Database, engine: AsyncEngine) -> None:
    orders = Repository(BenchOrder, database.session_factory)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def add_all(operations: int) -> None:
        async with sessions.begin() as session:
            session.add_all([BenchOrder(**_values()) for _ in range(operations)])

    async def peer(operations: int) -> None:
        async with sessions() as session:
            await _Peer(session=session).add_many(
                [BenchOrder(**_values()) for _ in range(operations)], auto_commit=True
            )

    async def core(operations: int) -> None:
        async with engine.begin() as connection:
            await connection.execute(insert(BenchOrder), [_values() for _ in range(operations)])

    async def ours(operations: int) -> None:
        await orders.copy(_values() for _ in range(operations))

    async def inserted(operations: int) -> None:
        await orders.insert_many(_values() for _ in range(operations))

    await bench.compare(
        "postgres: 10,000 rows at once, each",
        _ROWS,
        {
            "shared: Repository.copy": ours,
            "shared: Repository.insert_many": inserted,
            "Core, executemany": core,
            "ORM add_all": add_all,
            "advanced-alchemy add_many": peer,
        },
    )


async def _pages(bench: Bench, database: Database) -> None:
    orders = Repository(BenchOrder, database.session_factory)
    depths = _SMOKE_DEPTHS if bench.smoke else _DEPTHS
    await orders.copy(_values() for _ in range(depths[-1] + _PAGE - await orders.count() + 1))
    async with database.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).execute(
            text("VACUUM ANALYZE orders")
        )
    for depth in depths:
        cursor = None
        if depth:
            before = await orders.list(limit=1, offset=depth - 1)
            whole = await orders.page_by_key(limit=1, id__gte=before[0].id)
            cursor = whole.next

        async def by_key(operations: int, cursor: str | None = cursor) -> None:
            for _ in range(operations):
                await orders.page_by_key(limit=_PAGE, cursor=cursor)

        async def by_offset(operations: int, depth: int = depth) -> None:
            for _ in range(operations):
                await orders.list(limit=_PAGE, offset=depth)

        await bench.compare(
            f"postgres: a page of {_PAGE}, {depth} rows down",
            50,
            {"shared: page_by_key": by_key, "shared: list, by offset": by_offset},
        )


def _by_tasks(operation: Callable[[], Awaitable[object]]) -> Run:
    async def some(count: int) -> None:
        for _ in range(count):
            await operation()

    async def run(operations: int) -> None:
        share, rest = divmod(operations, _TASKS)
        await asyncio.gather(*(some(share + (task < rest)) for task in range(_TASKS)))

    return run
