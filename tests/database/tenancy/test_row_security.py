"""Whatever a service can do, it neither sees nor changes another merchant's rows.

Every public method of `Repository` is tried, and each has to be: a new one without its attempt
fails `test_every_method_of_the_repository_is_tried`. What counts is what PostgreSQL says, so each
attempt is followed by a look at the other's rows past all policies.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from pydantic import SecretStr
from sqlalchemy import Connection, event, select, text, true
from sqlalchemy.orm import joinedload, selectinload

from shared.database import (
    Database,
    Repository,
    RowLock,
    TenantRequiredError,
    bind_session,
    expose_merchants,
    isolate_merchants,
    system_scope,
    tenant_scope,
    where,
    without_isolation,
)
from shared.errors import DatabaseError, GlamBaseError, NotFoundError
from tests.database.articles import article
from tests.database.models import Account, Article, Line, Order, TestBase
from tests.database.orders import OTHER, SHOP, line, order

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from shared.config import DatabaseSettings

TABLES = ("accounts", "articles", "lines", "orders")
STATE = text(
    " UNION ALL ".join(
        f"SELECT '{table}', to_jsonb(t)::text FROM {table} t WHERE merchant_id = :merchant"
        for table in (*TABLES, "accounts_history")
    )
    + " ORDER BY 1, 2"
)


@dataclass
class World:
    """The repositories of one merchant, and rows of another that it came to know of."""

    articles: Repository[Article]
    orders: Repository[Order]
    lines: Repository[Line]
    accounts: Repository[Account]
    article: Article
    deleted: Order
    line: Line
    account: Account
    cursor: str


def op_on(connection: Connection) -> Operations:
    return Operations(MigrationContext.configure(connection))


def isolate(connection: Connection) -> None:
    for table in TABLES:
        isolate_merchants(op_on(connection), table)


@pytest.fixture
async def shops(database_settings: DatabaseSettings) -> AsyncIterator[Database]:
    """As the ordinary role, which owns the tables."""
    update = {
        "cursor_secret": SecretStr("a secret that signs cursors"),
        "pool_size": 1,
        "max_overflow": 0,
    }
    settings = database_settings.model_copy(update=update)
    async with Database(settings, schema="shop-1") as database:
        async with database.engine.begin() as connection:
            await connection.execute(text('CREATE SCHEMA "shop-1"'))
            await connection.run_sync(TestBase.metadata.create_all)
            await connection.run_sync(isolate)
        security = await database.row_security()
        assert not security.bypassed
        assert set(security.tables) == {*TABLES, "accounts_history"}
        yield database
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.fixture
async def world(shops: Database) -> World:
    factory = shops.session_factory
    articles, orders = Repository(Article, factory), Repository(Order, factory)
    lines, accounts = Repository(Line, factory), Repository(Account, factory)
    for merchant, name, number in ((OTHER, "theirs", 2), (SHOP, "mine", 1)):
        with tenant_scope(merchant):
            saved = await articles.save(article(name, merchant_id=merchant))
            await articles.save(article(f"{name} too", merchant_id=merchant))
            kept = await orders.save(order(name, merchant_id=merchant))
            gone = await orders.save(order("gone", merchant_id=merchant))
            await orders.delete(gone)
            sold = await lines.save(line(number, kept))
            account = await accounts.save(
                Account(id=number, merchant_id=merchant, merchant_domain="d", credits=number)
            )
            if merchant == OTHER:
                cursor = (await articles.page_by_key(limit=1)).next
                theirs = saved, kept, gone, sold, account
    assert cursor is not None
    ours = kept
    # Rows of each that refer to the other's, as only somebody past all policies can have made them.
    with system_scope("test"):
        await lines.save(line(3, theirs[1], merchant_id=SHOP))
        await lines.save(line(4, ours, merchant_id=OTHER))
    saved, _, gone, sold, account = theirs
    return World(articles, orders, lines, accounts, saved, gone, sold, account, cursor)


def foreign(rows: Any) -> int:
    """How many of the rows are the other merchant's."""
    return sum(row.merchant_id != SHOP for row in rows if row is not None)


def given_away(**values: Any) -> Article:
    return article(f"n{uuid4().hex[:12]}", **({"merchant_id": OTHER} | values))


async def _save(world: World) -> int:
    await world.articles.save(given_away())
    return 1


async def _update(world: World) -> int:
    row = given_away(id=world.article.id, stock=9, merchant_id=SHOP)
    return foreign([await world.articles.update(row)])


async def _delete(world: World) -> int:
    await world.articles.delete(world.article)
    await world.orders.delete(world.deleted, hard=True)
    return 0


async def _delete_by_id(world: World) -> int:
    await world.articles.delete_by_id(world.article.id)
    return 0


async def _restore(world: World) -> int:
    return foreign([await world.orders.restore(world.deleted.id)])


async def _find_by_id(world: World) -> int:
    found = [
        await world.articles.find_by_id(world.article.id),
        await world.orders.find_by_id(world.deleted.id, include_deleted=True),
        await world.lines.find_by_id(world.line.id, load=[joinedload(Line.order)]),
    ]
    return foreign(found)


async def _get(world: World) -> int:
    return foreign([await world.articles.get(world.article.id)])


async def _one(world: World) -> int:
    return foreign([await world.articles.one(name="theirs")])


async def _find_all(world: World) -> int:
    lines = await world.lines.find_all(load=[selectinload(Line.order)], include_deleted=True)
    joined = await world.lines.list(load=[joinedload(Line.order)])
    orders = await world.orders.find_all(load=[selectinload(Order.lines)], include_deleted=True)
    return (
        foreign(await world.articles.find_all(where(name="theirs") | true_()))
        + foreign(await world.orders.find_all(Order.lines.any(Line.merchant_id == OTHER)))
        + foreign(await world.articles.find_all(after=world.article))
        + sum(foreign([row, row.order]) for row in [*lines, *joined])
        + sum(foreign([row, *row.lines]) for row in orders)
    )


def true_() -> Any:
    return where(stock__gte=0)


async def _count(world: World) -> int:
    exact = await world.articles.count(id=world.article.id)
    return exact + await world.lines.count(Line.order.has(Order.merchant_id == OTHER))


async def _exists(world: World) -> int:
    return int(await world.articles.exists(name="theirs"))


async def _stream(world: World) -> int:
    seen = 0
    async with world.articles.stream(batch=1) as rows:
        async for row in rows:
            seen += foreign([row])
    async with world.lines.stream(batch=1, load=[selectinload(Line.order)]) as lines:
        async for sold in lines:
            seen += foreign([sold, sold.order])
    return seen


async def _page(world: World) -> int:
    page = await world.articles.page(name__startswith="theirs")
    return page.total + foreign(page.items)


async def _page_by_key(world: World) -> int:
    # The other's own cursor, which is signed for this list: its place is no secret, its rows are.
    pages = [
        await world.articles.page_by_key(limit=100),
        await world.articles.page_by_key(cursor=world.cursor, limit=1),
    ]
    return sum(foreign(page.items) for page in pages)


async def _claim(world: World) -> int:
    return foreign(await world.articles.claim(10))


async def _insert_many(world: World) -> int:
    return foreign(await world.articles.insert_many([given_away()]))


async def _insert_missing(world: World) -> int:
    taken = await world.articles.insert_missing([{"id": world.article.id} | FREE])
    return len(taken) + foreign(await world.articles.insert_missing([given_away()]))


async def _copy(world: World) -> int:
    await world.articles.copy([given_away()])
    return 1


async def _upsert_many(world: World) -> int:
    row = {"id": world.article.id} | FREE
    return foreign(await world.articles.upsert_many([row], conflict=["id"], change=["stock"]))


async def _update_many(world: World) -> int:
    return foreign(await world.articles.update_many({"stock": 9}, true()))


async def _update_each(world: World) -> int:
    return foreign(await world.articles.update_each([{"id": world.article.id, "stock": 9}]))


async def _delete_many(world: World) -> int:
    await world.lines.delete_many(Line.order.has(Order.merchant_id == OTHER), hard=True)
    await world.articles.delete_many(true(), hard=True)
    return 0


async def _history_of(world: World) -> int:
    return len(await world.accounts.history_of(world.account.id))


FREE = {"merchant_id": SHOP, "merchant_domain": "d", "name": "free", "price": None, "stock": 9}

ATTEMPTS: dict[str, Callable[[World], Awaitable[int]]] = {
    "claim": _claim,
    "copy": _copy,
    "count": _count,
    "delete": _delete,
    "delete_by_id": _delete_by_id,
    "delete_many": _delete_many,
    "exists": _exists,
    "find_all": _find_all,
    "find_by_id": _find_by_id,
    "get": _get,
    "history_of": _history_of,
    "insert_many": _insert_many,
    "insert_missing": _insert_missing,
    "list": _find_all,
    "one": _one,
    "page": _page,
    "page_by_key": _page_by_key,
    "restore": _restore,
    "save": _save,
    "stream": _stream,
    "update": _update,
    "update_each": _update_each,
    "update_many": _update_many,
    "upsert_many": _upsert_many,
}
WRITING = ("copy", "delete", "insert", "restore", "save", "up")
IN_A_UNIT_OF_WORK_ONLY = {"claim"}


async def state_of(database: Database) -> list[Any]:
    """What the other merchant has, past all policies."""
    with system_scope("test"):
        async with database.transaction() as session:
            return [tuple(row) for row in await session.execute(STATE, {"merchant": OTHER})]


async def leaks(database: Database, world: World, *, joined: bool = True) -> list[str]:
    """Try every method, alone and in a unit of work; return those that saw or changed anything."""
    found = []
    before = await state_of(database)
    # Those that read go first, while there is something to see.
    for name in sorted(ATTEMPTS, key=lambda name: name.startswith(WRITING)):
        attempt = ATTEMPTS[name]
        for alone in (True, False) if joined else (True,):
            if alone and name in IN_A_UNIT_OF_WORK_ONLY:
                continue
            try:
                with tenant_scope(SHOP):
                    seen = await tried(database, world, attempt, alone=alone)
            except GlamBaseError:
                seen = 0  # refused, or not found
            after = await state_of(database)
            if seen or after != before:
                found.append(name)
            before = after
    return found


async def tried(
    database: Database, world: World, attempt: Callable[[World], Awaitable[int]], *, alone: bool
) -> int:
    if alone:
        return await attempt(world)
    async with database.transaction() as session:
        with bind_session(session):
            return await attempt(world)


def test_every_method_of_the_repository_is_tried() -> None:
    public = {name for name in dir(Repository) if not name.startswith("_")}
    assert set(ATTEMPTS) == public, "each new method needs an attempt to reach another's rows"


async def test_no_method_reaches_another_tenants_rows(shops: Database, world: World) -> None:
    with tenant_scope(SHOP):
        assert await world.articles.count() == 2, "its own it reaches"
        assert len(await world.accounts.history_of(1)) == 1
        assert await world.articles.copy([given_away(merchant_id=SHOP)]) == 1
        await world.articles.delete_many(name__startswith="n")
    assert await leaks(shops, world) == []


async def test_a_connection_that_was_left_to_another_merchant_is_no_leak(
    shops: Database, world: World
) -> None:
    leave_to_the_other(shops)
    await shops.engine.dispose()
    assert await leaks(shops, world, joined=False) == []


def leave_to_the_other(database: Database) -> None:
    """Have every connection begin with the other merchant told, as if somebody had left it so."""

    @event.listens_for(database.engine.sync_engine, "connect")
    def left(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SELECT set_config('glam.merchant_id', '{OTHER}', false)")
        cursor.close()
        connection.commit()


async def test_without_a_merchant_every_method_is_an_error(shops: Database, world: World) -> None:
    before = await state_of(shops)
    for name, attempt in ATTEMPTS.items():
        for alone in (True, False):
            if alone and name in IN_A_UNIT_OF_WORK_ONLY:
                continue
            with pytest.raises(TenantRequiredError):
                await tried(shops, world, attempt, alone=alone)
    assert await state_of(shops) == before


@pytest.mark.parametrize("fault", ["not forced", "no policy", "told too late"])
async def test_a_hole_would_be_seen(
    shops: Database, world: World, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "told too late":
        leave_to_the_other(shops)
        await shops.engine.dispose()
        for module in ("transactions", "session"):
            monkeypatch.setattr(f"shared.database.engine.{module}.tell_tenant", lambda *_: None)
    else:
        what = "NO FORCE" if fault == "not forced" else "DISABLE"
        async with shops.engine.begin() as connection:
            for table in (*TABLES, "accounts_history"):
                await connection.execute(text(f"ALTER TABLE {table} {what} ROW LEVEL SECURITY"))
    found = await leaks(shops, world, joined=False)
    # Those alone that look for a name, a key or a merchant given away, whatever else is there.
    assert {"count", "exists", "find_all", "find_by_id", "get", "one", "stream"} <= set(found)
    assert {"copy", "save", "insert_many", "update_many", "history_of"} <= set(found)


# -- besides the repository's methods --------------------------------------------------------------


async def test_locks_and_lazy_loads_reach_no_other_rows(shops: Database, world: World) -> None:
    with tenant_scope(SHOP):
        async with shops.transaction() as session:
            with bind_session(session):
                with pytest.raises(NotFoundError):
                    await world.articles.get(world.article.id, lock=RowLock())
                (own,) = await world.lines.list(id=3, load=[selectinload(Line.order)])
                assert own.order is None
            sold = await session.get_one(Line, 3)
            assert await session.run_sync(lambda _: sold.order) is None
            rows = await session.execute(select(Line, Order).join(Order, true()))
            assert {one.merchant_id for row in rows for one in row} == {SHOP}
            await session.merge(Article(id=world.article.id, **FREE))
            with pytest.raises(Exception, match=r"row-level security|unique"):
                await session.flush()
            await session.rollback()


async def test_jobs_work_for_the_merchant_they_were_started_for(
    shops: Database, world: World
) -> None:
    async def job() -> set[str]:
        return {row.name for row in await world.articles.list()}

    with tenant_scope(SHOP):
        ours = asyncio.create_task(job())
    with tenant_scope(OTHER):
        theirs = asyncio.create_task(job())
    nobodys = asyncio.create_task(job())
    assert await ours == {"mine", "mine too"}
    assert await theirs == {"theirs", "theirs too"}
    with pytest.raises(TenantRequiredError):
        await nobodys
    with system_scope("a job across tenants"):
        assert len(await asyncio.create_task(job())) == 4


async def test_what_is_copied_has_its_defaults_types_and_constraints(
    shops: Database, world: World
) -> None:
    orders = world.orders
    with tenant_scope(SHOP):
        assert await orders.copy([order("c1", tags=["a"]), order("c2", note="n")]) == 2
        one = await orders.one(number="c1")
        assert (one.tags, one.note, one.version, one.is_deleted) == (["a"], None, 1, False)
        async with shops.transaction() as session:
            with bind_session(session):
                for _ in range(2):  # a second time in one transaction, after a failure too
                    with pytest.raises(GlamBaseError) as refused:
                        await orders.copy([order("c3"), order("c1")])
                    assert refused.value.details["columns"] == ["merchant_id", "number"]
                await orders.copy([order("c4")])
        assert await orders.count(number__startswith="c") == 3
        with pytest.raises(DatabaseError, match="row-level security"):
            await orders.copy([order("c5"), order("c6", merchant_id=OTHER)])
        assert not await orders.exists(number="c5")


async def test_the_history_of_an_isolated_table_is_isolated_with_it(
    shops: Database, world: World
) -> None:
    def backfill(connection: Connection) -> None:
        with without_isolation(op_on(connection), "accounts"):
            connection.execute(text("UPDATE accounts SET credits = 7"))

    async with shops.engine.begin() as connection:
        await connection.run_sync(backfill)
    with pytest.raises(TenantRequiredError):
        await world.accounts.history_of(1)
    with tenant_scope(SHOP):
        assert len(await world.accounts.history_of(1)) == 2
        assert await world.accounts.history_of(2) == []
    # A row that moved: each sees what was its own, and neither the step between.
    with system_scope("test"):
        await world.accounts.update_many({"merchant_id": OTHER}, id=1)
    for merchant, changes in ((SHOP, 2), (OTHER, 0)):
        with tenant_scope(merchant):
            assert len(await world.accounts.history_of(1)) == changes
    async with shops.engine.begin() as connection:
        await connection.run_sync(lambda sync: expose_merchants(op_on(sync), "accounts"))
    assert len(await world.accounts.history_of(1)) == 3


async def _raw(session: AsyncSession) -> list[Any]:
    return list(
        await session.scalars(
            text(
                "SELECT merchant_id FROM articles UNION ALL SELECT o.merchant_id FROM lines l"
                " JOIN orders o ON o.id = l.order_id UNION ALL SELECT merchant_id FROM"
                " accounts_history"
            )
        )
    )


async def _copied_out(session: AsyncSession) -> list[Any]:
    raw = await (await session.connection()).get_raw_connection()
    driver: Any = raw.driver_connection
    taken: list[bytes] = []

    async def take(data: bytes) -> None:
        taken.append(data)

    await driver.copy_from_query("SELECT merchant_id FROM articles", output=take)
    return b"".join(taken).decode().split()


async def test_sql_written_by_hand_is_held_in(shops: Database, world: World) -> None:
    assert world
    for statement in (_raw, _copied_out):
        with tenant_scope(SHOP):
            async with shops.transaction() as session:
                assert {str(one) for one in await statement(session)} == {str(SHOP)}
        with pytest.raises(TenantRequiredError):
            async with shops.transaction() as session:
                await statement(session)
