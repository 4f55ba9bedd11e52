import asyncio
import gc
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from shared.database import Database, Repository, bind_session
from shared.errors import ConflictError, NotFoundError, ValidationError
from tests.database.articles import MERCHANT, article
from tests.database.models import Article, Coupon, Stock


@pytest.fixture
def articles(database: Database) -> Repository[Article]:
    return Repository(Article, database.session_factory)


@pytest.fixture
def coupons(database: Database) -> Repository[Coupon]:
    return Repository(Coupon, database.session_factory)


async def test_save_then_find(articles: Repository[Article]) -> None:
    saved = await articles.save(article())
    found = await articles.find_by_id(saved.id)
    assert found is not None
    assert found.name == "lipstick"
    assert await articles.find_by_id(str(saved.id)) is not None
    assert await articles.find_by_id(uuid4()) is None


async def test_a_malformed_id_is_a_validation_error(articles: Repository[Article]) -> None:
    with pytest.raises(ValidationError):
        await articles.find_by_id("no uuid")


async def test_update_returns_the_row_as_it_is_now(articles: Repository[Article]) -> None:
    saved = await articles.save(article())
    detached = article("powder", id=saved.id, stock=3)
    updated = await articles.update(detached)
    assert updated is not detached
    assert (updated.name, updated.stock) == ("powder", 3)
    assert updated.updated_at > saved.updated_at


async def test_delete_twice_is_harmless(articles: Repository[Article]) -> None:
    saved = await articles.save(article())
    await articles.delete(saved)
    await articles.delete(saved)
    await articles.delete_by_id(saved.id)
    assert await articles.find_all() == []


async def test_a_second_of_the_same_name_is_a_conflict(articles: Repository[Article]) -> None:
    await articles.save(article())
    with pytest.raises(ConflictError) as caught:
        await articles.save(article())
    assert caught.value.details == {
        "conflicting_resource": "articles",
        "constraint": "uq_articles_name",
        "columns": ["name"],
    }
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "values", [{"stock": -1}, {"name": "x" * 21}, {"name": None}, {"stock": 2**40}]
)
async def test_a_value_the_table_refuses_is_a_validation_error(
    articles: Repository[Article], values: dict[str, Any]
) -> None:
    with pytest.raises(ValidationError):
        await articles.save(article(**{"name": "n"} | values))


async def test_the_second_writer_of_a_version_is_refused(database: Database) -> None:
    stocks = Repository(Stock, database.session_factory)
    await stocks.save(Stock(id=1, count=5))
    mine, yours = await stocks.find_by_id(1), await stocks.find_by_id(1)
    assert mine is not None
    assert yours is not None
    mine.count, yours.count = 4, 3
    assert (await stocks.update(mine)).version == 2
    with pytest.raises(ConflictError):
        await stocks.update(yours)


async def test_two_at_once_on_one_version_leave_one(database: Database) -> None:
    stocks = Repository(Stock, database.session_factory)
    await stocks.save(Stock(id=1, count=0))

    async def increment() -> bool:
        stock = await stocks.find_by_id(1)
        assert stock is not None
        stock.count += 1
        try:
            await stocks.update(stock)
        except ConflictError:
            return False
        return True

    done = await asyncio.gather(*(increment() for _ in range(10)))
    stock = await stocks.find_by_id(1)
    assert stock is not None
    assert stock.count == sum(done) >= 1


# -- finding ---------------------------------------------------------------------------------


@pytest.fixture
async def shelf(articles: Repository[Article]) -> Repository[Article]:
    for n, price in enumerate(["3", "1", "2", None, "2"]):
        await articles.save(article(f"a{n}", price=Decimal(price) if price else None, stock=n))
    return articles


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, "a0 a1 a2 a3 a4"),
        ({"name": "a2"}, "a2"),
        ({"name": ["a1", "a3"]}, "a1 a3"),
        ({"name__in": {"a1", "a3"}}, "a1 a3"),
        ({"name": []}, ""),
        ({"price": None}, "a3"),
        ({"price__ne": None}, "a0 a1 a2 a4"),
        ({"stock__gt": 1, "stock__lte": 3}, "a2 a3"),
        ({"stock__gte": 1, "stock__lt": 3}, "a1 a2"),
        ({"name__like": "%4"}, "a4"),
        ({"name__ilike": "A0"}, "a0"),
    ],
)
async def test_filters(shelf: Repository[Article], filters: dict[str, Any], names: str) -> None:
    found = await shelf.find_all(order_by="name", **filters)
    assert [row.name for row in found] == names.split()
    assert await shelf.count(**filters) == len(found)


@pytest.mark.parametrize("name", ["colour", "metadata", "name__near", "_sa_registry"])
async def test_an_unknown_column_is_a_validation_error(
    articles: Repository[Article], name: str
) -> None:
    filters: dict[str, Any] = {name: 1}
    with pytest.raises(ValidationError):
        await articles.find_all(**filters)
    with pytest.raises(ValidationError):
        await articles.find_all(order_by=name)


async def test_offset_and_limit(shelf: Repository[Article]) -> None:
    assert [a.name for a in await shelf.find_all(order_by="-name", limit=2, offset=1)] == [
        "a3",
        "a2",
    ]
    assert await shelf.find_all(limit=0) == []
    with pytest.raises(ValidationError):
        await shelf.find_all(limit=-1)


async def test_find_all_is_bounded(articles: Repository[Article], database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(
            text("""INSERT INTO articles (id, merchant_id, merchant_domain, name, stock)
            SELECT gen_random_uuid(), gen_random_uuid(), 'd', n, 0
            FROM generate_series(1, 1001) n""")
        )
    assert len(await articles.find_all()) == 1000
    assert len(await articles.find_all(limit=2000)) == 1001


async def test_pages_by_key_join_without_gap_or_double(shelf: Repository[Article]) -> None:
    names: list[str] = []
    last: Article | None = None
    while page := await shelf.find_all(
        order_by=["-price", "stock"], after=last, limit=2, price__ne=None
    ):
        names += [row.name for row in page]
        last = page[-1]
    assert names == ["a0", "a2", "a4", "a1"]


# -- soft delete -----------------------------------------------------------------------------


async def test_soft_deleted_rows_are_hidden_unless_asked_for(coupons: Repository[Coupon]) -> None:
    coupon = await coupons.save(Coupon(id=1, code="SPRING"))
    await coupons.save(Coupon(id=2, code="AUTUMN"))
    await coupons.delete(coupon)
    assert await coupons.find_by_id(1) is None
    assert [c.id for c in await coupons.find_all()] == [2]
    assert await coupons.count() == 1
    assert await coupons.count(include_deleted=True) == 2
    deleted = await coupons.find_by_id(1, include_deleted=True)
    assert deleted is not None
    assert deleted.is_deleted
    assert deleted.deleted_at is not None


async def test_restore_takes_a_soft_delete_back(coupons: Repository[Coupon]) -> None:
    await coupons.save(Coupon(id=1, code="SPRING"))
    await coupons.delete_by_id(1)
    restored = await coupons.restore(1)
    assert (restored.is_deleted, restored.deleted_at) == (False, None)
    assert await coupons.find_by_id(1) is not None
    with pytest.raises(NotFoundError):
        await coupons.restore(2)


async def test_a_hard_delete_destroys(coupons: Repository[Coupon]) -> None:
    coupon = await coupons.save(Coupon(id=1, code="SPRING"))
    await coupons.delete(coupon, hard=True)
    assert await coupons.count(include_deleted=True) == 0


# -- joining ---------------------------------------------------------------------------------


class OldArticles(Repository[Article]):
    """A subclass as services have them."""

    async def names(self) -> list[str]:
        async for session in self._session():
            return list(await session.scalars(select(self.model.name)))
        raise AssertionError

    async def add_and_commit(self, name: str) -> None:
        async for session in self._session():
            session.add(article(name))
            await session.commit()

    async def add(self, name: str) -> None:
        async for session in self._session():
            session.add(article(name))

    async def names_by_factory(self) -> list[str]:
        async with self.session_factory() as session:
            return list(await session.scalars(select(self.model.name)))


async def test_repositories_join_the_open_unit_of_work(database: Database) -> None:
    articles = OldArticles(Article, database.session_factory)
    coupons = Repository(Coupon, database.session_factory)
    async with database.session_factory() as session:
        with bind_session(session):
            await articles.save(article("joined"))
            await coupons.save(Coupon(id=1, code="SPRING"))
            await articles.add_and_commit("by loop")
            await articles.add("uncommitted")
            assert len(await articles.find_all()) == len(await articles.names()) == 3
            assert await articles.names_by_factory() == []
        await session.rollback()
    assert await articles.find_all() == []
    assert await coupons.find_all() == []


async def test_a_loop_over_sessions_commits_alone_outside(database: Database) -> None:
    articles = OldArticles(Article, database.session_factory)
    await articles.add_and_commit("one")
    await articles.add("two")
    assert sorted(await articles.names()) == ["one", "two"]


async def test_ten_thousand_calls_leak_no_connection(database: Database) -> None:
    articles = OldArticles(Article, database.session_factory)
    for _ in range(5_000):
        await articles.find_by_id(MERCHANT)
        await articles.names()
    gc.collect()
    for _ in range(100):
        await asyncio.sleep(0.01)
        if database.engine.pool.checkedout() == 0:  # type: ignore[attr-defined]
            break
    assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_cancelled_calls_leak_no_connection(articles: Repository[Article]) -> None:
    for n in range(200):
        task = asyncio.create_task(articles.find_all())
        for _ in range(n % 20):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])


# -- tenants ---------------------------------------------------------------------------------


async def test_a_tenants_repository_neither_sees_nor_touches_rows_of_others(
    database: Database, articles: Repository[Article]
) -> None:
    other = UUID("018f4e9a-0000-7000-8000-000000000002")
    mine = await articles.save(article("mine"))
    theirs = await articles.save(article("theirs", merchant_id=other))
    scoped = Repository(Article, database.session_factory, merchant_id=MERCHANT)
    assert [row.id for row in await scoped.find_all()] == [mine.id]
    assert await scoped.count() == 1
    assert await scoped.find_by_id(theirs.id) is None
    await scoped.delete(theirs)
    await scoped.delete_by_id(theirs.id)
    for foreign in (theirs, article("stolen", id=theirs.id)):
        with pytest.raises(ValidationError):
            await scoped.update(foreign)
    with pytest.raises(ValidationError):
        await scoped.save(article("new", merchant_id=other))
    kept = await articles.find_by_id(theirs.id)
    assert kept is not None
    assert (kept.name, kept.merchant_id) == ("theirs", other)
    with pytest.raises(TypeError):
        Repository(Coupon, database.session_factory, merchant_id=MERCHANT)
