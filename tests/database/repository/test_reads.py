"""Getting rows: one, many, by stream, under a lock; and the autocommit path."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from threading import Thread
from typing import Any

import pytest
from sqlalchemy import event, inspect, text
from sqlalchemy.pool import NullPool

from shared.context import Context, bind
from shared.database import Database, Repository, RowLock, bind_session
from shared.database import detached as outside
from shared.errors import ConflictError, DatabaseError, NotFoundError, ValidationError
from tests.database.articles import article
from tests.database.models import Article, Coupon, Order, Reading, Stock
from tests.database.orders import OTHER, SHOP


@pytest.fixture
async def stocks(database: Database) -> Repository[Stock]:
    stocks = Repository(Stock, database.session_factory)
    await stocks.copy({"id": n, "count": n % 3} for n in range(9))
    return stocks


@asynccontextmanager
async def unit_of_work(database: Database) -> AsyncIterator[None]:
    async with database.transaction() as session:
        with bind_session(session):
            yield


async def test_get_and_one_find_exactly_one(stocks: Repository[Stock]) -> None:
    assert (await stocks.get("3")).count == 0
    assert (await stocks.one(id=4)).count == 1
    with pytest.raises(NotFoundError) as missing:
        await stocks.get(99)
    assert missing.value.details == {"resource": "Stock", "resource_id": 99}
    with pytest.raises(NotFoundError):
        await stocks.one(id=99)
    with pytest.raises(ConflictError):
        await stocks.one(count=0)
    assert await stocks.exists(count=2)
    assert not await stocks.exists(count=3)


async def test_a_key_of_two_columns_is_a_tuple(database: Database) -> None:
    readings = Repository(Reading, database.session_factory)
    await readings.save(Reading(device="a", at=1, name="n"))
    assert (await readings.get(("a", 1))).name == "n"
    with pytest.raises(ValidationError, match="2 parts: device, at"):
        await readings.get("a")
    await readings.delete_by_id(("a", 1))
    assert await readings.find_by_id(("a", 1)) is None
    assert (await readings.restore(("a", 1))).name == "n"


async def test_a_hundred_thousand_rows_stream_through_little_memory(database: Database) -> None:
    stocks = Repository(Stock, database.session_factory)
    await stocks.copy({"id": n, "count": 0} for n in range(100_000))
    seen = 0
    async with stocks.stream(batch=500, order_by="id") as rows:
        tracemalloc.start()
        try:
            async for row in rows:
                assert row.id == seen
                seen += 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert seen == 100_000
    assert peak < 8_000_000, "a list of them takes ten times as much"
    async with stocks.stream() as rows:
        async for row in rows:
            if row.id == 5:
                break
    assert await stocks.count() == 100_000
    with pytest.raises(ValidationError):
        async with stocks.stream(batch=0):
            pass


async def test_workers_claim_each_row_once(database: Database, stocks: Repository[Stock]) -> None:
    claimed: list[int] = []
    both = asyncio.Barrier(3)

    async def work() -> None:
        async with unit_of_work(database):
            rows = await stocks.claim(3, order_by="-id", version=1)
            await both.wait()
            claimed.extend(row.id for row in rows)
            await stocks.update_many({"count": 9}, id__in=[row.id for row in rows])

    await asyncio.gather(*(work() for _ in range(3)))
    assert sorted(claimed) == list(range(9))
    async with unit_of_work(database):
        assert await stocks.claim(9, version=1) == []
    with pytest.raises(RuntimeError, match="inside `async with` of a unit of work"):
        await stocks.claim(1)
    with pytest.raises(RuntimeError):
        await stocks.get(1, lock=RowLock())


async def test_a_lock_keeps_others_away(database: Database, stocks: Repository[Stock]) -> None:
    async with unit_of_work(database):
        mine = await stocks.get(1, lock=RowLock())

        async def other(lock: RowLock) -> list[int]:
            async with unit_of_work(database):
                return [row.id for row in await stocks.list(id__lt=3, lock=lock)]

        assert await asyncio.create_task(detached(other(RowLock(skip_locked=True)))) == [0, 2]
        with pytest.raises(DatabaseError) as refused:
            await asyncio.create_task(detached(other(RowLock(nowait=True))))
        assert refused.value.details["error_code"] == "55P03"
        assert refused.value.retryable
        mine.count = 7
    async with unit_of_work(database):
        await stocks.get(1, lock=RowLock(key_share=True, read=True))

        async def shared() -> list[int]:
            async with unit_of_work(database):
                lock = RowLock(key_share=True, nowait=True)
                return [row.count for row in await stocks.list(id=1, lock=lock)]

        assert await asyncio.create_task(detached(shared())) == [7]
    with pytest.raises(ValueError, match="exclude each other"):
        RowLock(nowait=True, skip_locked=True)


async def detached(call: Coroutine[object, object, list[int]]) -> list[int]:
    with outside():
        return await call


async def test_a_locked_row_is_read_anew(database: Database, stocks: Repository[Stock]) -> None:
    async with unit_of_work(database):
        before = await stocks.get(1)
        async with database.transaction() as other:
            await other.execute(text("UPDATE stocks SET count = 5 WHERE id = 1"))
        assert (await stocks.get(1)).count == before.count == 1
        assert (await stocks.get(1, lock=RowLock())).count == 5


# -- the autocommit path ----------------------------------------------------------------------


@asynccontextmanager
async def statements(database: Database) -> AsyncIterator[list[str]]:
    seen: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def test_alone_a_row_costs_one_statement_and_comes_out_the_same(database: Database) -> None:
    articles = Repository(Article, database.session_factory)
    async with statements(database) as seen:
        saved = await articles.save(article("a"))
        found = await articles.get(saved.id)
    assert [statement.split()[0] for statement in seen] == ["INSERT", "SELECT"], seen
    async with unit_of_work(database):
        joined = await articles.get(saved.id)
    for row in (saved, found):
        assert inspect(row).detached
        assert not inspect(row).modified
        assert {c.key: getattr(row, c.key) for c in inspect(Article).column_attrs} == {
            c.key: getattr(joined, c.key) for c in inspect(Article).column_attrs
        }
        assert inspect(row).identity == (saved.id,)
    found.stock = 4
    assert inspect(found).attrs.stock.history.deleted == [0]
    assert (await articles.update(found)).stock == 4
    with pytest.raises(ConflictError):
        await articles.save(article("a"))
    with pytest.raises(ValidationError):
        await articles.save(article("b", stock=-1))


async def test_the_short_way_hides_and_counts_like_the_long_one(database: Database) -> None:
    coupons = Repository(Coupon, database.session_factory)
    stocks = Repository(Stock, database.session_factory)
    coupon = await coupons.save(Coupon(code="A"))
    assert coupon.id == 1
    assert coupon.is_deleted is False
    await coupons.delete(coupon)
    assert await coupons.find_by_id(1) is None
    assert await coupons.find_by_id(1, include_deleted=True) is not None
    stock = await stocks.save(Stock(id=1, count=0))
    assert stock.version == 1
    stock.count = 1
    assert (await stocks.update(stock)).version == 2
    articles = Repository(Article, database.session_factory)
    theirs = await articles.save(article("theirs", merchant_id=OTHER))
    mine = Repository(Article, database.session_factory, merchant_id=SHOP)
    assert await mine.find_by_id(theirs.id) is None


async def test_the_short_way_is_left_where_it_would_be_noticed(database: Database) -> None:
    articles = Repository(Article, database.session_factory)
    orders = Repository(Order, database.session_factory)
    saved = await articles.save(article("a"))
    begun: list[object] = []
    event.listen(database.engine.sync_engine, "begin", begun.append)
    await articles.get(saved.id)
    await orders.find_by_id(saved.id)  # it has relationships
    assert len(begun) >= 1
    begun.clear()
    with bind(Context.start(tenant_id=str(SHOP))):
        async with statements(database) as seen:
            await articles.get(saved.id)
    assert "glam.merchant_id" in seen[0], "the tenant is told first, in the same transaction"
    heard: list[object] = []

    def listen(*arguments: object) -> None:
        heard.append(arguments)

    kind = database.session_factory.kw["sync_session_class"]
    event.listen(kind, "before_flush", listen)
    try:
        await articles.save(article("b"))
    finally:
        event.remove(kind, "before_flush", listen)
    assert heard, "a listener of the session hears of what is saved"


async def test_a_connection_closed_while_it_rests_is_not_handed_out(database: Database) -> None:
    articles = Repository(Article, database.session_factory)
    saved = await articles.save(article("a"))
    async with database.engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
    observer = database.create_engine(poolclass=NullPool)
    async with observer.connect() as other:
        await other.execute(
            text("SELECT pg_terminate_backend(:pid)"), {"pid": driver.get_server_pid()}
        )
    await observer.dispose()
    while not driver.is_closed():
        await asyncio.sleep(0.01)
    assert (await articles.get(saved.id)).name == "a"


async def test_a_connection_is_not_handed_out_whose_end_the_loop_has_not_read_yet(
    database: Database,
) -> None:
    articles = Repository(Article, database.session_factory)
    saved = await articles.save(article("a"))

    async def terminate(pid: int) -> None:
        other = await database.connect()
        await other.execute(f"SELECT pg_terminate_backend({pid}, 5000)")
        await other.close()

    async def closed_unheard() -> Any:
        async with database.engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
        # In a loop of its own, while this one stands still.
        thread = Thread(target=asyncio.run, args=(terminate(driver.get_server_pid()),))
        thread.start()
        thread.join()
        return driver

    assert not (await closed_unheard()).is_closed()
    assert (await articles.get(saved.id)).name == "a"
    assert not (await closed_unheard()).is_closed()
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT 1")) == 1
