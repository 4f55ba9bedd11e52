"""What a repository must never show or touch: rows of other tenants, and rows that are deleted.

`CALLS` has a call for every public method; one without a call fails the first test.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import select, text, true
from sqlalchemy.orm import joinedload, selectinload

from shared.database import Database, Repository, RowLock, bind_session, where
from shared.errors import ConflictError, NotFoundError, ValidationError
from tests.database.models import Line, Order, Stock
from tests.database.orders import OTHER, SHOP, line, order

Orders = Repository[Order]
Call = Callable[[Orders, Order, Order], Awaitable[object]]


async def _stream(orders: Orders, mine: Order, theirs: Order) -> list[Order]:
    async with orders.stream(true()) as rows:
        return [row async for row in rows]


async def _pages(orders: Orders, mine: Order, theirs: Order) -> list[Order]:
    return (await orders.page_by_key()).items + (await orders.page()).items


def _row(theirs: Order, **values: Any) -> dict[str, Any]:
    return {"merchant_domain": "stolen", "number": theirs.number, **values}


# What a repository of one merchant is asked to do with a row of another.
CALLS: dict[str, list[Call]] = {
    "claim": [lambda orders, mine, theirs: orders.claim(9, true())],
    "copy": [
        lambda orders, mine, theirs: orders.copy([_row(theirs, merchant_id=OTHER, number="n")]),
        lambda orders, mine, theirs: orders.copy([_row(theirs, id=theirs.id, number="n")]),
    ],
    "count": [lambda orders, mine, theirs: orders.count(true())],
    "delete": [
        lambda orders, mine, theirs: orders.delete(theirs),
        lambda orders, mine, theirs: orders.delete(theirs, hard=True),
    ],
    "delete_by_id": [lambda orders, mine, theirs: orders.delete_by_id(theirs.id, hard=True)],
    "delete_many": [
        lambda orders, mine, theirs: orders.delete_many(id=theirs.id),
        lambda orders, mine, theirs: orders.delete_many(id=theirs.id, hard=True),
        lambda orders, mine, theirs: orders.delete_many(merchant_id=OTHER, hard=True),
    ],
    "exists": [lambda orders, mine, theirs: orders.exists(id=theirs.id)],
    "find_all": [lambda orders, mine, theirs: orders.find_all(true(), include_deleted=True)],
    "find_by_id": [
        lambda orders, mine, theirs: orders.find_by_id(theirs.id),
        lambda orders, mine, theirs: orders.find_by_id(theirs.id, include_deleted=True),
    ],
    "get": [lambda orders, mine, theirs: orders.get(theirs.id)],
    "history_of": [],  # of a model that has one: test_history.py
    "insert_many": [
        lambda orders, mine, theirs: orders.insert_many([order("new", merchant_id=OTHER)]),
        lambda orders, mine, theirs: orders.insert_many([_row(theirs, id=theirs.id)]),
    ],
    "insert_missing": [
        lambda orders, mine, theirs: orders.insert_missing([order("new", merchant_id=OTHER)]),
        lambda orders, mine, theirs: orders.insert_missing([_row(theirs, id=theirs.id)]),
    ],
    "list": [
        lambda orders, mine, theirs: orders.list(where(merchant_id=OTHER) | where()),
        lambda orders, mine, theirs: orders.list(id=theirs.id),
    ],
    "one": [lambda orders, mine, theirs: orders.one(id=theirs.id)],
    "page": [_pages],
    "page_by_key": [_pages],
    "restore": [lambda orders, mine, theirs: orders.restore(theirs.id)],
    "save": [lambda orders, mine, theirs: orders.save(order("new", merchant_id=OTHER))],
    "stream": [_stream],
    "update": [
        lambda orders, mine, theirs: orders.update(theirs),
        lambda orders, mine, theirs: orders.update(order("stolen", id=theirs.id, version=1)),
        lambda orders, mine, theirs: orders.update(
            order("1", id=mine.id, version=1, lines=[Line(id=2, sku="stolen", merchant_id=SHOP)])
        ),
    ],
    "update_each": [
        lambda orders, mine, theirs: orders.update_each([{"id": theirs.id, "note": "x"}]),
        lambda orders, mine, theirs: orders.update_each([{"id": mine.id, "merchant_id": OTHER}]),
        lambda orders, mine, theirs: orders.update_each([theirs]),
    ],
    "update_many": [
        lambda orders, mine, theirs: orders.update_many({"note": "x"}, id=theirs.id),
        lambda orders, mine, theirs: orders.update_many({"merchant_id": OTHER}, id=mine.id),
        lambda orders, mine, theirs: orders.update_many({"merchant_id": None}, id=mine.id),
    ],
    "upsert_many": [
        lambda orders, mine, theirs: orders.upsert_many(
            [_row(theirs, id=theirs.id)], conflict=["id"]
        ),
        lambda orders, mine, theirs: orders.upsert_many(
            [_row(theirs, id=theirs.id, number="free")], conflict=["id"], change=[]
        ),
        lambda orders, mine, theirs: orders.upsert_many(
            [_row(theirs, merchant_id=OTHER)], conflict=["merchant_id", "number"]
        ),
    ],
}


def public_methods() -> set[str]:
    return {name for name, it in vars(Repository).items() if callable(it) and name[0] != "_"}


def test_every_public_method_is_tried_below() -> None:
    assert set(CALLS) == public_methods()


@pytest.mark.parametrize("joined", [False, True], ids=["alone", "in a unit of work"])
async def test_no_method_shows_or_changes_a_row_of_another_merchant(
    database: Database, joined: bool
) -> None:
    everybody = Repository(Order, database.session_factory)
    mine, theirs = await everybody.insert_many(
        [order("1", note="mine"), order("2", merchant_id=OTHER, note="theirs")]
    )
    lines = Repository(Line, database.session_factory)
    await lines.insert_many([line(1, mine), line(2, theirs)])
    before = await dump(database)
    orders = Repository(Order, database.session_factory, merchant_id=SHOP)
    for name, calls in CALLS.items():
        for number, call in enumerate(calls):
            if name == "claim" and not joined:
                continue
            try:
                if joined:
                    async with database.transaction() as session:
                        with bind_session(session):
                            answer = await call(orders, mine, theirs)
                else:
                    answer = await call(orders, mine, theirs)
            except (ValidationError, ConflictError, NotFoundError) as error:
                assert "theirs" not in str(error.details)  # noqa: PT017
            else:
                shown: list[Any] = answer if isinstance(answer, list) else [answer]
                assert all(row.id == mine.id for row in shown if isinstance(row, Order)), name
                assert answer in (None, 0, 1, [], False) or {row.id for row in shown} == {mine.id}
            assert await dump(database) == before, f"{name}, call {number}"
    assert await orders.count() == 1


async def dump(database: Database) -> list[Any]:
    async with database.transaction() as session:
        rows = await session.execute(
            text("SELECT to_jsonb(o) FROM orders o UNION ALL SELECT to_jsonb(l) FROM lines l")
        )
        return sorted(map(str, rows))


async def test_a_new_row_gets_the_merchant_worked_for(database: Database) -> None:
    orders = Repository(Order, database.session_factory, merchant_id=SHOP)
    saved = await orders.save(order("1", merchant_id=None))
    bare = {"merchant_domain": "d"}
    await orders.insert_many([{**bare, "number": "2"}, order("3", merchant_id=None)])
    await orders.copy([{**bare, "number": "4"}])
    await orders.upsert_many([{**bare, "number": "5"}], conflict=["merchant_id", "number"])
    assert saved.merchant_id == SHOP
    assert await orders.count(merchant_id=SHOP) == 5


async def test_rows_referred_to_are_of_the_same_merchant_and_not_deleted(
    database: Database,
) -> None:
    everybody = Repository(Order, database.session_factory)
    lines = Repository(Line, database.session_factory)
    (mine,) = await everybody.insert_many([order("1")])
    await lines.insert_many(
        [line(1, mine), line(2, mine, merchant_id=OTHER), line(3, mine, sku="gone")]
    )
    await lines.delete_by_id(3)
    orders = Repository(Order, database.session_factory, merchant_id=SHOP)
    gone = Order.lines.any(Line.sku == "gone")
    of_others = Order.lines.any(Line.merchant_id == OTHER)
    in_subquery = Order.id.in_(select(Line.order_id).where(Line.sku == "gone"))
    for load in (selectinload(Order.lines), joinedload(Order.lines)):
        (row,) = await orders.list(load=[load])
        assert [one.id for one in row.lines] == [1]
        (row,) = (await orders.page(load=[load])).items
        assert [one.id for one in row.lines] == [1]
        (row,) = (await orders.page_by_key(load=[load])).items
        assert [one.id for one in row.lines] == [1]
        assert [one.id for one in (await orders.get(mine.id, load=[load])).lines] == [1]
        assert [one.id for one in (await orders.one(number="1", load=[load])).lines] == [1]
        async with database.transaction() as session:
            with bind_session(session):
                locked = await orders.get(mine.id, load=[load], lock=RowLock())
                assert [one.id for one in locked.lines] == [1]
    async with orders.stream(load=[selectinload(Order.lines)]) as rows:
        assert [[one.id for one in row.lines] async for row in rows] == [[1]]
    (row,) = await everybody.list(load=[selectinload(Order.lines)])
    assert sorted(one.id for one in row.lines) == [1, 2]
    (row,) = await everybody.list(load=[selectinload(Order.lines)], include_deleted=True)
    assert sorted(one.id for one in row.lines) == [1, 2, 3]
    for condition in (gone, of_others, in_subquery):
        assert await orders.list(condition) == []
        assert await orders.count(condition) == 0
        assert not await orders.exists(condition)
        assert await orders.update_many({"note": "x"}, condition) == []
        assert await orders.delete_many(condition) == 0
    assert await everybody.count(of_others) == 1
    assert await everybody.count(gone, include_deleted=True) == 1


async def test_no_method_shows_or_changes_a_deleted_row(database: Database) -> None:
    orders = Repository(Order, database.session_factory)
    mine, theirs = await orders.insert_many([order("1"), order("2", note="theirs")])
    await orders.delete(theirs)
    before = await dump(database)
    for name in ("claim", "count", "exists", "find_by_id", "get", "list", "one", "page", "stream"):
        for call in CALLS[name][:1]:
            async with database.transaction() as session:
                with bind_session(session):
                    try:
                        answer = await call(orders, mine, theirs)
                    except NotFoundError:
                        continue
            shown = answer if isinstance(answer, list) else [answer]
            assert all(row.id == mine.id for row in shown if isinstance(row, Order)), name
    assert await orders.count() == 1
    for name in ("update_each", "update_many", "delete_many"):
        with suppress(NotFoundError):
            await CALLS[name][0](orders, mine, theirs)
        assert await dump(database) == before, name


def test_a_model_without_tenants_has_no_scope(database: Database) -> None:
    with pytest.raises(TypeError, match="no MerchantMixin"):
        Repository(Stock, database.session_factory, merchant_id=SHOP)
