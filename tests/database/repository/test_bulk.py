"""Many rows at once."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import ColumnDefault, func, text, true
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import Database, Money, Repository, bind_session, excluded, where
from shared.errors import ConflictError, NotFoundError, ValidationError
from tests.database.articles import article
from tests.database.models import (
    Address,
    Article,
    Coupon,
    Order,
    Reading,
    Status,
    Stock,
)
from tests.database.orders import SHOP

DAY = datetime(2026, 1, 31, 12, 30, tzinfo=UTC)


@pytest.fixture
def orders(database: Database) -> Repository[Order]:
    return Repository(Order, database.session_factory)


@pytest.fixture
def stocks(database: Database) -> Repository[Stock]:
    return Repository(Stock, database.session_factory)


@asynccontextmanager
async def unit_of_work(database: Database) -> AsyncIterator[AsyncSession]:
    async with database.transaction() as session:
        with bind_session(session):
            yield session


def rich(number: str, **values: Any) -> dict[str, Any]:
    return {
        "merchant_id": SHOP,
        "merchant_domain": "a.example.com",
        "number": number,
        "status": Status.PAID,
        "note": 'tab\t, line\n, \\N, "quoted", ☃',
        "total": Money("-12.50", "EUR"),
        "tags": ["a,b", "{c}", ""],
        "data": {"deep": [1, None, {"x": "☃"}]},
        "address": Address(street="Main", lines=("a", "b"), since=DAY),
        "placed_at": DAY,
    } | values


@pytest.mark.parametrize("way", ["insert_many", "copy", "upsert_many", "save"])
async def test_every_type_and_default_comes_out_as_it_went_in(database: Database, way: str) -> None:
    orders = Repository(Order, database.session_factory)
    bare = {"merchant_id": SHOP, "merchant_domain": "a.example.com", "number": "2"}
    given: list[Any] = [rich("1"), bare, Order(**rich("3", data=None, tags=[])), rich("4")]
    if way == "save":
        for row in given:
            await orders.save(row if isinstance(row, Order) else Order(**row))
    elif way == "copy":
        assert await orders.copy(iter(given)) == 4
    elif way == "upsert_many":
        await orders.upsert_many(given, conflict=["merchant_id", "number"])
    else:
        made = await orders.insert_many(iter(given))
        assert [row.number for row in made] == ["1", "2", "3", "4"]
    rows = await orders.list(order_by="number")
    first, second, third, _ = rows
    for name, value in rich("1").items():
        assert getattr(first, name) == value, name
    assert (second.status, second.tags, second.version, second.note) == (Status.NEW, [], 1, None)
    assert (second.total, second.data, second.address, second.is_deleted) == (
        None,
        None,
        None,
        False,
    )
    assert (third.data, third.tags, third.total) == (None, [], Money("-12.50", "EUR"))
    assert len({row.id for row in rows}) == 4
    assert all(isinstance(row.id, UUID) and row.id.version == 7 for row in rows)


@pytest.mark.parametrize("way", ["insert_many", "copy"])
async def test_all_or_none(database: Database, way: str) -> None:
    articles = Repository(Article, database.session_factory)
    insert = getattr(articles, way)
    rows = [article(f"{n}") for n in range(40)]
    with pytest.raises(ConflictError) as caught:
        await insert([*rows, article("7")])
    assert caught.value.details == {
        "conflicting_resource": "articles",
        "constraint": "uq_articles_name",
        "columns": ["name"],
    }
    for bad in ({"name": "x" * 21}, {"name": None}, {"stock": -1}, {"stock": 2**40}):
        with pytest.raises(ValidationError):
            await insert([*rows, {"merchant_id": SHOP, "merchant_domain": "d", "name": "n"} | bad])
    with pytest.raises(ValidationError, match="did you mean stock"):
        await insert([*rows, {"stok": 1}])
    assert await articles.count() == 0
    await insert([])
    async with unit_of_work(database):
        await insert(rows)
        with pytest.raises(ConflictError):
            await insert([article("new"), article("7")])
        await articles.save(article("after"))
        assert await articles.count() == 41
    assert await articles.count() == 41, "the unit of work outlived the error it caught"
    assert not await articles.exists(name="new")


async def test_copy_is_undone_with_its_unit_of_work(database: Database) -> None:
    stocks = Repository(Stock, database.session_factory)
    with pytest.raises(RuntimeError):  # noqa: PT012
        async with unit_of_work(database):
            # First of all: no statement before it has begun the transaction.
            await stocks.copy({"id": n, "count": n} for n in range(10))
            raise RuntimeError
    assert await stocks.count() == 0


async def test_ten_thousand_rows_by_copy_and_back_by_stream(database: Database) -> None:
    stocks = Repository(Stock, database.session_factory)

    def rows() -> Iterator[dict[str, int]]:
        for n in range(45_000):
            yield {"id": n, "count": n % 7}

    assert await stocks.copy(rows()) == 45_000
    assert await stocks.count(count=0) == 6429


async def test_what_the_database_makes_is_left_to_it(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("ALTER TABLE coupons ALTER id DROP DEFAULT"))
        await session.execute(text("ALTER TABLE coupons ALTER id ADD GENERATED ALWAYS AS IDENTITY"))
    coupons = Repository(Coupon, database.session_factory)
    assert await coupons.copy([{"code": "A"}, {"code": "B"}]) == 2
    assert [row.code for row in await coupons.insert_many([Coupon(code="C")])] == ["C"]
    assert [row.id for row in await coupons.list()] == [1, 2, 3]


# -- update ----------------------------------------------------------------------------------


async def test_update_many_changes_what_matches_and_returns_it(
    stocks: Repository[Stock],
) -> None:
    await stocks.insert_many({"id": n, "count": n} for n in range(5))
    changed = await stocks.update_many({"count": Stock.count + 10}, count__gte=3)
    assert sorted((row.id, row.count, row.version) for row in changed) == [(3, 13, 2), (4, 14, 2)]
    assert await stocks.update_many({"count": 0}, id=3, version=1) == []
    assert len(await stocks.update_many({"count": 0}, true())) == 5
    for call in (stocks.update_many({"count": 0}), stocks.delete_many()):
        with pytest.raises(TypeError, match=r"sqlalchemy\.true"):
            await call
    with pytest.raises(ValidationError):
        await stocks.update_many({}, id=1)
    with pytest.raises(ValidationError, match="did you mean count"):
        await stocks.update_many({"cont": 1}, id=1)


async def test_bulk_changes_are_seen_by_rows_in_hand(database: Database) -> None:
    stocks = Repository(Stock, database.session_factory)
    coupons = Repository(Coupon, database.session_factory)
    async with unit_of_work(database):
        one = await stocks.save(Stock(id=1, count=1))
        coupon = await coupons.save(Coupon(id=1, code="A"))
        await stocks.update_many({"count": 5}, id=1)
        assert (one.count, one.version) == (5, 2)
        await stocks.update_each([{"id": 1, "count": 6}])
        assert (one.count, one.version) == (6, 3)
        await stocks.upsert_many([{"id": 1, "count": 7}], conflict=["id"])
        assert (one.count, one.version) == (7, 4)
        one.count = 8
        await stocks.upsert_many([{"id": 2, "count": 0}], conflict=["id"])
        assert await stocks.exists(count=8), "what is pending is written first"
        assert await coupons.delete_many(id=1) == 1
        assert coupon.is_deleted
        assert await stocks.delete_many(id=1) == 1
        assert await stocks.find_by_id(1) is None


async def test_update_each_changes_each_by_its_key(orders: Repository[Order]) -> None:
    made = await orders.insert_many(rich(f"{n}") for n in range(3))
    changed = await orders.update_each(
        [
            {"id": made[1].id, "note": None, "total": Money(5, "JPY"), "version": 1},
            {"id": made[0].id, "note": "new", "status": Status.NEW, "tags": ["x"], "data": {}},
            {"id": made[2].id, "note": "third", "address": Address(street="S"), "placed_at": None},
        ]
    )
    assert [row.id for row in changed] == [made[1].id, made[0].id, made[2].id]
    assert [(row.note, row.version) for row in changed] == [(None, 2), ("new", 2), ("third", 2)]
    assert changed[0].total == Money(5, "JPY")
    assert (changed[1].status, changed[1].tags, changed[1].data) == (Status.NEW, ["x"], {})
    assert (changed[2].address, changed[2].placed_at) == (Address(street="S"), None)
    with pytest.raises(ValidationError):
        await orders.update_each([{"id": made[0].id, "number": "x" * 21}])


async def test_update_each_of_a_stale_version_changes_none(stocks: Repository[Stock]) -> None:
    rows = await stocks.insert_many({"id": n, "count": 0} for n in range(1, 4))
    await stocks.update_each([{"id": 2, "count": 1}])
    for row in rows:
        row.count = 9
    with pytest.raises(ConflictError) as caught:
        await stocks.update_each(rows)
    assert caught.value.details == {"conflicting_resource": "stocks", "ids": [2]}
    with pytest.raises(NotFoundError) as missing:
        await stocks.update_each([{"id": 1, "count": 9}, {"id": 8, "count": 9}])
    assert missing.value.details == {"resource": "Stock", "resource_id": [8]}
    assert await stocks.count(count=9) == 0
    with pytest.raises(ValidationError, match="same id"):
        await stocks.update_each([{"id": 1, "count": 1}, {"id": 1, "count": 2}])
    with pytest.raises(ValidationError, match="needs its id"):
        await stocks.update_each([{"count": 1}])


async def test_updated_at_changes_by_bulk_too(database: Database) -> None:
    articles = Repository(Article, database.session_factory)
    (row,) = await articles.insert_many([article("a")])
    for change in (
        articles.update_many({"stock": 1}, name="a"),
        articles.update_each([{"id": row.id, "stock": 2}]),
        articles.upsert_many([article("a", stock=3)], conflict=["name"]),
    ):
        (changed,) = await change
        assert changed.updated_at > row.updated_at
        assert changed.created_at == row.created_at
        row = changed
    assert row.stock == 3


# -- upsert ----------------------------------------------------------------------------------


async def test_upsert_inserts_or_changes_and_keeps_the_order(orders: Repository[Order]) -> None:
    (there,) = await orders.insert_many([rich("2", note="old")])
    rows = [rich("3"), rich("2", note="new"), {**rich("1"), "note": None}]
    made = await orders.upsert_many(rows, conflict=["merchant_id", "number"])
    assert [(row.number, row.note == rows[n]["note"]) for n, row in enumerate(made)] == [
        ("3", True),
        ("2", True),
        ("1", True),
    ]
    assert (made[1].id, made[1].version, made[0].version) == (there.id, 2, 1)
    (kept,) = await orders.upsert_many(
        [rich("2", note="ignored", status=Status.NEW)],
        conflict=["merchant_id", "number"],
        change=["status"],
    )
    assert (kept.note, kept.status, kept.version) == ("new", Status.NEW, 3)
    (kept,) = await orders.upsert_many(
        [rich("2", total=Money(1, "USD"))], conflict=["merchant_id", "number"], change=["total"]
    )
    assert (kept.note, kept.total) == ("new", Money(1, "USD"))


async def test_upsert_finds_the_index_it_needs(database: Database) -> None:
    readings = Repository(Reading, database.session_factory)
    first = {"device": "d", "at": 1, "name": "n"}
    await readings.upsert_many([first], conflict=["device", "at"])
    (row,) = await readings.upsert_many(
        [{"device": "e", "at": 1, "name": "n"}], conflict=["name"], change=["at"]
    )
    assert row.device == "d", "known by the partial index on name"
    with pytest.raises(ValidationError, match="no unique constraint or index on at"):
        await readings.upsert_many([first], conflict=["at"])
    with pytest.raises(ValidationError, match="rows 0 and 1 have the same device, at"):
        await readings.upsert_many([first, first], conflict=["device", "at"])
    (same,) = await readings.upsert_many([first], conflict=["device", "at"], change=[])
    assert same.name == "n"


async def test_upsert_of_a_stale_version_changes_none(stocks: Repository[Stock]) -> None:
    await stocks.insert_many([{"id": 1, "count": 1}, {"id": 2, "count": 1}])
    await stocks.update_many({"count": 2}, id=2)
    with pytest.raises(ConflictError) as caught:
        await stocks.upsert_many(
            [{"id": 1, "count": 9, "version": 1}, {"id": 2, "count": 9, "version": 1}],
            conflict=["id"],
        )
    assert caught.value.details == {"conflicting_resource": "stocks", "columns": ["id"]}
    assert await stocks.count(count=9) == 0
    (row,) = await stocks.upsert_many([{"id": 2, "count": 9, "version": 2}], conflict=["id"])
    assert (row.count, row.version) == (9, 3)


async def test_upsert_revives_what_was_soft_deleted(database: Database) -> None:
    coupons = Repository(Coupon, database.session_factory)
    await coupons.insert_many([{"id": 1, "code": "A"}])
    await coupons.delete_by_id(1)
    (row,) = await coupons.upsert_many([{"id": 1, "code": "B"}], conflict=["id"])
    assert (row.code, row.is_deleted, row.deleted_at) == ("B", False, None)
    assert await coupons.count() == 1


async def test_soft_deleted_rows_are_out_of_reach_of_bulk_changes(database: Database) -> None:
    coupons = Repository(Coupon, database.session_factory)
    await coupons.insert_many({"id": n, "code": f"{n}"} for n in (1, 2, 3))
    assert await coupons.delete_many(id__in=[1, 2]) == 2
    assert await coupons.delete_many(true()) == 1
    assert await coupons.update_many({"code": "x"}, true()) == []
    with pytest.raises(NotFoundError):
        await coupons.update_each([{"id": 1, "code": "x"}])
    assert await coupons.count(include_deleted=True, deleted_at__null=False) == 3
    assert await coupons.delete_many(id__lt=3, hard=True) == 2
    assert await coupons.count(include_deleted=True) == 1


async def test_more_rows_than_a_statement_has_parameters(stocks: Repository[Stock]) -> None:
    rows = [{"id": n, "count": 0} for n in range(12_000)]
    assert [row.id for row in await stocks.upsert_many(rows, conflict=["id"])] == list(
        range(12_000)
    )
    changed = await stocks.update_each({"id": n, "count": n} for n in reversed(range(12_000)))
    assert [row.count for row in changed] == list(reversed(range(12_000)))


async def test_a_row_of_another_model_is_a_type_error(stocks: Repository[Stock]) -> None:
    with pytest.raises(TypeError, match="a Coupon is not a Stock"):
        await stocks.insert_many([Coupon(id=1, code="A")])  # type: ignore[list-item]


async def test_a_default_that_copy_cannot_work_out_is_named(database: Database) -> None:
    readings = Repository(Reading, database.session_factory)
    column: Any = Reading.__table__.c.name
    column.default = ColumnDefault(func.now())
    try:
        with pytest.raises(ValidationError, match="default of name"):
            await readings.copy([{"device": "d", "at": 1}])
        assert await readings.copy([{"device": "d", "at": 1, "name": None}]) == 1
    finally:
        column.default = None


async def test_rows_that_are_missing_are_inserted_and_told(
    stocks: Repository[Stock],
) -> None:
    rows = [{"id": n, "count": n} for n in range(3)]
    assert [row.id for row in await stocks.insert_missing(rows[:2], conflict=["id"])] == [0, 1]
    again = [{"id": n, "count": 9} for n in (0, 2, 2)]
    assert [(row.id, row.count) for row in await stocks.insert_missing(again)] == [(2, 9)]
    assert (await stocks.get(0)).count == 0
    with pytest.raises(ValidationError, match="declares no unique"):
        await stocks.insert_missing(rows, conflict=["count"])


async def test_an_upsert_changes_rows_only_when_and_with_what_it_is_told(
    stocks: Repository[Stock],
) -> None:
    await stocks.insert_many([{"id": 1, "count": 10}, {"id": 2, "count": 20}])
    rows = [{"id": n, "count": 15} for n in (1, 2, 3)]
    newer = Stock.count < excluded(Stock.count)
    changed = await stocks.upsert_many(rows, conflict=["id"], when=newer)
    assert [(row.id, row.count, row.version) for row in changed] == [(1, 15, 2), (3, 15, 1)]
    added = await stocks.upsert_many(
        rows[:2],
        conflict=["id"],
        change={"count": Stock.count + excluded(Stock.count)},
        when=where(count__gt=15),
    )
    assert [(row.id, row.count) for row in added] == [(2, 35)]
