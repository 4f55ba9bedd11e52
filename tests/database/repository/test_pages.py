"""Pages by number and by key."""

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import product
from typing import Any

import pytest
from pydantic import TypeAdapter

from shared.api import Links, Pagination, paginated_response
from shared.database import Database, KeysetPage, Repository
from shared.errors import ValidationError
from tests.database.articles import article
from tests.database.models import Article, Order, Reading, Status, Stock
from tests.database.orders import OTHER, SHOP, order

DAY = datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def orders(database: Database) -> Repository[Order]:
    return Repository(Order, database.session_factory)


@pytest.fixture
async def shop(orders: Repository[Order]) -> Repository[Order]:
    notes, statuses, days = ["a", "b", None], list(Status), [DAY, DAY + timedelta(days=1), None]
    await orders.insert_many(
        order(f"{n:02}", note=note, status=status, placed_at=day)
        for n, (note, status, day) in enumerate(product(notes, statuses, days))
    )
    return orders


ORDERS = [
    (),
    "number",
    "-number",
    ["note", "number"],
    ["-note", "number"],
    ["note", "-placed_at"],
    ["-placed_at", "-note", "status"],
    ["-status", "placed_at", "-id"],
    ["status", "number"],
]


async def test_pages_by_key_are_the_list_cut_up_in_both_directions(
    shop: Repository[Order],
) -> None:
    for order_by in ORDERS:
        whole = [row.number for row in await shop.list(order_by=order_by)]
        for limit in (1, 4, 17, 18, 30):
            forth, back = await both_ways(shop, order_by, limit)
            assert [number for page in forth for number in page] == whole
            assert back == forth[:-1]


async def both_ways(
    orders: Repository[Order], order_by: Any, limit: int
) -> tuple[list[list[str]], list[list[str]]]:
    page = await orders.page_by_key(order_by=order_by, limit=limit)
    assert page.previous is None
    forth = [[row.number for row in page.items]]
    while page.next is not None:
        assert page.has_more
        assert len(page.items) == limit
        page = await orders.page_by_key(order_by=order_by, limit=limit, cursor=page.next)
        forth.append([row.number for row in page.items])
    back: list[list[str]] = []
    while page.previous is not None:
        page = await orders.page_by_key(order_by=order_by, limit=limit, cursor=page.previous)
        back.insert(0, [row.number for row in page.items])
    return forth, back


async def test_after_goes_on_behind_null_too(shop: Repository[Order]) -> None:
    whole = await shop.list(order_by=["-note", "placed_at"])
    for n in range(len(whole)):
        rest = await shop.list(order_by=["-note", "placed_at"], after=whole[n])
        assert rest == [] or [row.id for row in rest] == [row.id for row in whole[n + 1 :]]


async def test_rows_that_come_and_go_neither_shift_nor_double_a_page(database: Database) -> None:
    stocks = Repository(Stock, database.session_factory)
    await stocks.insert_many({"id": n, "count": n // 3} for n in range(0, 60, 2))
    chance = random.Random(7)
    there = set(range(0, 60, 2))
    seen: list[int] = []
    page: KeysetPage[Stock] | None = None
    while page is None or page.next is not None:
        page = await stocks.page_by_key(
            cursor=None if page is None else page.next, limit=4, order_by=["-count", "id"]
        )
        seen += [row.id for row in page.items]
        gone = chance.sample(sorted(there), 3)  # the very row of the cursor among them, at times
        await stocks.delete_many(id__in=gone)
        there -= set(gone)
        new = chance.randrange(1, 60, 2)
        await stocks.upsert_many([{"id": new, "count": new // 3}], conflict=["id"])
    assert len(seen) == len(set(seen))
    assert there <= set(seen), "what was there all the time was seen"
    assert [n // 3 for n in seen] == sorted((n // 3 for n in seen), reverse=True)


async def test_an_emptied_page_still_knows_the_way_back_and_forth(database: Database) -> None:
    stocks = Repository(Stock, database.session_factory)
    await stocks.insert_many({"id": n, "count": 0} for n in range(1, 7))
    first = await stocks.page_by_key(limit=3)
    await stocks.delete_many(id__gt=3)
    empty = await stocks.page_by_key(limit=3, cursor=first.next)
    assert (empty.items, empty.next, empty.has_more) == ([], None, False)
    back = await stocks.page_by_key(limit=3, cursor=empty.previous)
    assert [row.id for row in back.items] == [1, 2, 3]
    await stocks.insert_many({"id": n, "count": 0} for n in range(4, 7))
    second = await stocks.page_by_key(limit=3, cursor=first.next)
    await stocks.delete_many(id__lt=4)
    empty = await stocks.page_by_key(limit=3, cursor=second.previous)
    assert (empty.items, empty.previous) == ([], None)
    forth = await stocks.page_by_key(limit=3, cursor=empty.next)
    assert [row.id for row in forth.items] == [4, 5, 6]


async def test_a_cursor_changed_or_of_another_list_is_refused(database: Database) -> None:
    stocks = Repository(Stock, database.session_factory)
    readings = Repository(Reading, database.session_factory)
    articles = Repository(Article, database.session_factory)
    await stocks.insert_many({"id": n, "count": n} for n in range(3))
    await readings.insert_many({"device": "d", "at": n} for n in range(3))
    await articles.insert_many(article(f"{n}", merchant_id=OTHER) for n in range(3))
    cursor = (await stocks.page_by_key(limit=1)).next
    assert cursor is not None
    theirs = Repository(Article, database.session_factory, merchant_id=OTHER)
    foreign = (await theirs.page_by_key(limit=1)).next
    secretly = Repository(Stock, database.session_factory, cursor_secret="x" * 16)
    changed = ("A" if cursor[-3] != "A" else "B").join([cursor[:-3], cursor[-2:]])
    for bad in (changed, cursor[:-4], cursor + "AAAA", "", "é", "A", "x" * 10_000, "AAAA" * 8):
        with pytest.raises(ValidationError) as caught:
            await stocks.page_by_key(limit=1, cursor=bad)
        assert caught.value.details == {"field": "cursor"}
    for call in (
        stocks.page_by_key(limit=1, cursor=cursor, order_by="-id"),
        stocks.page_by_key(limit=1, cursor=cursor, order_by="count"),
        readings.page_by_key(limit=1, cursor=cursor),
        secretly.page_by_key(limit=1, cursor=cursor),
    ):
        with pytest.raises(ValidationError):
            await call
    for merchant in (SHOP, None):
        mine = Repository(Article, database.session_factory, merchant_id=merchant)
        with pytest.raises(ValidationError):
            await mine.page_by_key(limit=1, cursor=foreign)
    for backward in ("previous", "next"):
        page = await stocks.page_by_key(limit=1, cursor=cursor)
        assert getattr(page, backward) != cursor


async def test_without_a_secret_there_are_no_cursors(database: Database) -> None:
    database.session_factory.kw["info"] = {"cursor_secret": None}
    stocks = Repository(Stock, database.session_factory)
    with pytest.raises(RuntimeError, match=r"database\.cursor_secret"):
        await stocks.page_by_key()
    short = Repository(Stock, database.session_factory, cursor_secret="short")
    with pytest.raises(ValueError, match="16 bytes"):
        await short.page_by_key()
    assert "signs cursors" not in repr(database.session_factory)


async def test_a_page_has_1_to_1000_rows(orders: Repository[Order]) -> None:
    for limit in (0, -1, 1001):
        for page in (orders.page, orders.page_by_key):
            with pytest.raises(ValidationError):
                await page(limit=limit)


async def test_an_order_that_is_none_is_refused(orders: Repository[Order]) -> None:
    for order_by in ("data", "tags", "address", "nmber", ["number", "-number"]):
        with pytest.raises(ValidationError) as caught:
            await orders.page_by_key(order_by=order_by)
        assert caught.value.details["field"] in {"order_by", "nmber"}


async def test_a_cursor_holds_values_exactly(database: Database) -> None:
    prices = ["1.10", "1.1", "NaN", "-3", "1e10", "0.00001", "0.00002", "0"]
    articles = Repository(Article, database.session_factory)
    await articles.insert_many(article(f"{n}", price=Decimal(p)) for n, p in enumerate(prices))
    whole = [row.name for row in await articles.list(order_by="-price")]
    names: list[str] = []
    cursor = None
    while len(names) < len(prices):
        page = await articles.page_by_key(order_by="-price", limit=1, cursor=cursor)
        names += [row.name for row in page.items]
        cursor = page.next
    assert (names, cursor) == (whole, None)


async def test_pages_by_number_are_counted(shop: Repository[Order]) -> None:
    page = await shop.page(page=2, limit=8, order_by="number", note__null=False)
    assert [row.number for row in page.items] == ["08", "09", "10", "11"]
    assert (page.total, page.pages, page.has_next, page.has_previous) == (12, 2, False, True)
    pagination = TypeAdapter(Pagination).validate_python(page, from_attributes=True)
    assert pagination == Pagination.create(page.page, page.limit, page.total)
    answer = paginated_response(page.items, page.page, page.limit, page.total, "/orders")
    assert answer.pagination == pagination
    behind = await shop.page(page=9, limit=8)
    assert (behind.items, behind.total, behind.has_more) == ([], 18, False)
    with pytest.raises(ValidationError):
        await shop.page(page=0)


async def test_links_of_a_page_by_key_keep_the_rest_of_the_query(shop: Repository[Order]) -> None:
    first = await shop.page_by_key(limit=5, order_by="number")
    links = Links(**first.links("https://shop.example/orders?q=a%26b&limit=5"))
    assert links.next == f"https://shop.example/orders?q=a%26b&limit=5&cursor={first.next}"
    assert links.previous is None
    second = await shop.page_by_key(limit=5, order_by="number", cursor=first.next)
    links = Links(**second.links(links.next))
    assert links.first == "https://shop.example/orders?q=a%26b&limit=5"
    assert links.previous is not None
    assert links.previous.endswith(f"&cursor={second.previous}")


async def test_pages_of_a_key_of_two_columns(database: Database) -> None:
    readings = Repository(Reading, database.session_factory)
    await readings.insert_many({"device": d, "at": n} for d in "ab" for n in range(3))
    page = await readings.page_by_key(limit=4)
    rest = await readings.page_by_key(limit=4, cursor=page.next)
    assert [(row.device, row.at) for row in rest.items] == [("b", 1), ("b", 2)]
