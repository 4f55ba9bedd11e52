"""Filters by name, and how they combine."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import or_

from shared.database import Condition, Database, Money, Repository, where
from shared.errors import ValidationError
from tests.database.articles import article
from tests.database.models import Article, Order
from tests.database.orders import order

NAMES = ["a%b", "aXb", "a_b", "A%B", "c/d"]


@pytest.fixture
async def shelf(database: Database) -> Repository[Article]:
    articles = Repository(Article, database.session_factory)
    await articles.insert_many(
        [
            article(name, stock=n, price=None if n == 4 else Decimal(n))
            for n, name in enumerate(NAMES)
        ]
    )
    return articles


LITERALLY: list[tuple[dict[str, Any], list[int]]] = [
    ({"name__contains": "%"}, [0, 3]),
    ({"name__contains": "_"}, [2]),
    ({"name__contains": "/"}, [4]),
    ({"name__startswith": "a%"}, [0]),
    ({"name__endswith": "%b"}, [0]),
    ({"name__icontains": "A%"}, [0, 3]),
    ({"name__istartswith": "A_"}, [2]),
    ({"name__iendswith": "_B"}, [2]),
    ({"name__iexact": "A%b"}, [0, 3]),
    ({"name__iexact": "C/D"}, [4]),
    ({"name__like": "a%b"}, [0, 1, 2]),
    ({"stock__between": (1, 3)}, [1, 2, 3]),
    ({"price__null": True}, [4]),
    ({"price__gt": Decimal(1)}, [2, 3]),
    ({"price__null": False}, [0, 1, 2, 3]),
    ({"price__in": [Decimal(1), None]}, [1, 4]),
    ({"price__not_in": [Decimal(1)]}, [0, 2, 3, 4]),
    ({"price__not_in": [Decimal(1), None]}, [0, 2, 3]),
    ({"price__ne": Decimal(1)}, [0, 2, 3, 4]),
    ({"stock__in": range(2)}, [0, 1]),
]


async def test_comparisons_take_what_they_are_given_literally(shelf: Repository[Article]) -> None:
    for filters, stocks in LITERALLY:
        found = [row.stock for row in await shelf.list(order_by="stock", **filters)]
        assert found == stocks, filters
        assert await shelf.count(**filters) == len(stocks)
        assert await shelf.exists(**filters)
        rest = [row.stock for row in await shelf.list(~where(**filters), order_by="stock")]
        assert sorted(rest + stocks) == [0, 1, 2, 3, 4], "the rest is the rest, NULL or not"


COMBINED: list[tuple[Condition, list[int]]] = [
    (where(stock=1) | where(stock=3), [1, 3]),
    (where(stock__gt=0) & where(stock__lt=3), [1, 2]),
    (where(stock__gt=0) & ~(where(stock=2) | where(price=None)), [1, 3]),
    (where(stock=1) | where(stock=2) & where(name="nobody"), [1]),
    (where(), [0, 1, 2, 3, 4]),
    (~where(), []),
    (or_(Article.stock == 0, Article.name.contains("X")), [0, 1]),
]


async def test_conditions_combine(shelf: Repository[Article]) -> None:
    for condition, stocks in COMBINED:
        found = await shelf.list(condition, order_by="stock")
        assert [row.stock for row in found] == stocks, condition
        both = await shelf.list(condition, stock__gte=2, order_by="stock")
        assert [row.stock for row in both] == [stock for stock in stocks if stock >= 2]


def test_and_or_not_of_the_language_are_refused_rather_than_misread() -> None:
    with pytest.raises(TypeError, match=r"& \| ~"):
        where(stock=1) or where(stock=2)


async def test_what_is_no_condition_is_refused(shelf: Repository[Article]) -> None:
    with pytest.raises(TypeError, match="is not a condition"):
        await shelf.list({"stock": 1})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is not a condition"):
        await shelf.list(True)  # type: ignore[arg-type]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"stok": 1}, "did you mean stock?"),
    ({"merchant": 1}, "did you mean merchant_id?"),
    ({"zzz": 1}, "it has created_at, id, merchant_domain"),
    ({"stock__near": 1}, "between, contains"),
    ({"stock__gt": None}, "NULL"),
    ({"stock__between": 3}, "a pair"),
    ({"stock__in": "12"}, "a list"),
    ({"stock__in": 12}, "a list"),
    ({"price__null": "yes"}, "True or False"),
    ({"name__contains": 3}, "text"),
    ({"name__iexact": 3}, "text"),
]


async def test_a_filter_that_means_nothing_says_what_would(shelf: Repository[Article]) -> None:
    for filters, words in REFUSED:
        for condition in (where(**filters), where(stock=1) | where(**filters)):
            with pytest.raises(ValidationError) as caught:
                await shelf.list(condition)
            assert words in caught.value.message
            assert caught.value.details["field"] == next(iter(filters))


async def test_money_is_found_by_equality(database: Database) -> None:
    orders = Repository(Order, database.session_factory)
    await orders.save(order("1", total=Money("12.50", "EUR")))
    await orders.save(order("2", total=Money("12.50", "USD")))
    assert [row.number for row in await orders.list(total=Money("12.50", "EUR"))] == ["1"]
    assert [row.number for row in await orders.list(total__ne=Money("12.50", "EUR"))] == ["2"]
    assert [row.number for row in await orders.list(total_amount__gt=12, number="2")] == ["2"]
