"""Ten thousand calls, many of them cancelled half way, leave no connection behind."""

import asyncio
import random
from collections.abc import Awaitable, Callable  # noqa: TC003
from contextlib import suppress

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from shared.database import Database, Repository, RowLock, bind_session
from shared.delivery import UnitOfWork, UnitOfWorkFactory
from shared.errors import GlamBaseError
from tests.database.articles import article
from tests.database.models import Account, Article, Stock

CALLS = 10_000
WORKERS = 24


async def test_ten_thousand_calls_cancelled_at_random_leak_no_connection(  # noqa: C901, PLR0915
    database: Database,
) -> None:
    stocks = Repository(Stock, database.session_factory)
    articles = Repository(Article, database.session_factory)
    accounts = Repository(Account, database.session_factory)
    units = UnitOfWorkFactory(database, service="leaks")
    await stocks.insert_many({"id": n, "count": 0} for n in range(50))
    chance = random.Random(3)
    numbers = iter(range(10**9))

    async def stream() -> None:
        async with stocks.stream(batch=5) as rows:
            async for row in rows:
                if row.id == 20:
                    break

    async def unit_of_work() -> None:
        async with database.transaction() as session:
            with bind_session(session):
                (row,) = await stocks.claim(1)
                await stocks.update_many({"count": 1}, id=row.id)
                await stocks.copy([{"id": 1000 + next(numbers), "count": 0}])
                await stocks.get(0, lock=RowLock(skip_locked=True))
                raise asyncio.CancelledError

    async def plain() -> None:
        async with units() as uow:
            row = await uow.repository(Stock).get(chance.randrange(4, 50))
            row.count += 1

    async def nested() -> None:
        async with units() as uow:
            with suppress(ZeroDivisionError):
                async with uow.savepoint():
                    await uow.repository(Stock).update_many({"count": -1}, id=3)
                    raise ZeroDivisionError
            async with uow.savepoint():
                await uow.repository(Stock).count(id=3)

    async def again() -> None:
        async def work(uow: UnitOfWork) -> None:
            row = await uow.repository(Stock).get(49)
            row.count += 1

        await units.run(work, isolation="repeatable read", attempts=2)

    async def read() -> None:
        async with units(read_only=True) as uow:
            await uow.repository(Stock).find_by_id(1)
            await uow.release()
            await uow.repository(Stock).find_by_id(2)

    in_units: list[Callable[[], Awaitable[object]]] = [plain, nested, again, read, unit_of_work]
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: stocks.find_by_id(1),
        lambda: stocks.get(2),
        lambda: articles.save(article(f"n{next(numbers)}")),
        lambda: accounts.find_by_id(1),
        lambda: stocks.list(limit=5),
        stocks.count,
        lambda: stocks.exists(id=3),
        lambda: stocks.page_by_key(limit=3),
        lambda: stocks.copy([{"id": 1000 + next(numbers), "count": 0}]),
        lambda: stocks.upsert_many([{"id": chance.randrange(50), "count": 0}], conflict=["id"]),
        lambda: stocks.insert_many([{"id": 1, "count": 0}]),
        stream,
    ]
    short = [*calls[:4] * 2, plain, read]
    outcomes = {"done": 0, "cancelled": 0, "failed": 0}

    async def work() -> None:
        for _ in range(CALLS // WORKERS):
            # Mostly the short ones; one in eight is cancelled, wherever it may be by then.
            call = chance.choice(short if chance.random() < 0.95 else [*calls, *in_units])
            task = asyncio.ensure_future(call())
            if chance.random() < 0.12:
                for _ in range(chance.randrange(12)):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                outcomes["cancelled"] += 1
            elif task.exception() is not None:
                assert isinstance(task.exception(), GlamBaseError), task.exception()
                outcomes["failed"] += 1
            else:
                outcomes["done"] += 1

    await asyncio.gather(*(work() for _ in range(WORKERS)))
    assert outcomes["cancelled"] > CALLS / 40
    assert outcomes["done"] > CALLS / 2
    pool = database.engine.pool
    assert pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await stocks.count(id__lt=50) == 50, "the pool still serves"
    assert not await stocks.exists(count__lt=0), "what was undone stays undone"
    # The server agrees: nobody is in a transaction, and there are no more than the pool keeps.
    observer = database.create_engine(poolclass=NullPool)
    try:
        for _ in range(200):
            busy, open_ = await server_side(observer, database.application_name)
            if (busy, open_) <= (0, pool.size()):  # type: ignore[attr-defined]
                break
            await asyncio.sleep(0.05)
        assert busy == 0
        assert open_ <= pool.size()  # type: ignore[attr-defined]
    finally:
        await observer.dispose()


async def server_side(observer: AsyncEngine, name: str) -> tuple[int, int]:
    async with observer.connect() as connection:
        found = await connection.execute(
            text(
                "SELECT count(*) FILTER (WHERE state <> 'idle'), count(*) FROM pg_stat_activity"
                " WHERE application_name = :name AND datname = current_database()"
                " AND pid <> pg_backend_pid()"
            ),
            {"name": name},
        )
        busy, open_ = found.one()
        return busy, open_
