"""What the drivers' errors are called, and what they tell."""

from typing import Any

import pytest
from sqlalchemy import text

from shared.database import Database, Repository, bind_session
from shared.errors import ConflictError, GlamBaseError, ValidationError
from tests.database.articles import article
from tests.database.models import Article, Line, Order, Reading, Stock
from tests.database.orders import line, order


async def failure(call: Any) -> GlamBaseError:
    with pytest.raises(GlamBaseError) as caught:
        await call
    assert caught.value.__cause__ is not None
    return caught.value


async def test_each_constraint_says_which_and_of_which_columns(database: Database) -> None:
    orders = Repository(Order, database.session_factory)
    lines = Repository(Line, database.session_factory)
    articles = Repository(Article, database.session_factory)
    one = await orders.save(order("1"))
    await lines.save(line(1, one))

    unique = await failure(orders.save(order("1", note="secret")))
    assert isinstance(unique, ConflictError)
    assert unique.details == {
        "conflicting_resource": "orders",
        "constraint": "uq_orders_merchant_id_number",
        "columns": ["merchant_id", "number"],
    }
    assert "a.example.com" not in str(unique.to_dict())

    restricted = await failure(orders.delete_many(id=one.id, hard=True))
    assert isinstance(restricted, ConflictError)
    assert restricted.details == {
        "conflicting_resource": "lines",
        "constraint": "fk_lines_order_id_orders",
        "columns": ["id"],
    }

    missing = await failure(lines.save(line(2, order("x", id=one.merchant_id))))
    assert isinstance(missing, ValidationError)
    assert missing.details == {
        "field": "order_id",
        "table": "lines",
        "constraint": "fk_lines_order_id_orders",
        "columns": ["order_id"],
    }

    empty = await failure(orders.save(order("2", merchant_domain=None)))
    assert isinstance(empty, ValidationError)
    assert empty.details == {
        "field": "merchant_domain",
        "table": "orders",
        "columns": ["merchant_domain"],
    }

    check = await failure(articles.save(article(stock=-1)))
    assert isinstance(check, ValidationError)
    assert check.details == {"table": "articles", "constraint": "ck_articles_stock"}

    long = await failure(articles.save(article("x" * 21)))
    assert isinstance(long, ValidationError)
    assert long.details == {"error_code": "22001"}


PARTS = """\
CREATE TABLE parts (
  reading text, at int, FOREIGN KEY (reading, at) REFERENCES readings ON DELETE RESTRICT
)"""


async def test_exclusion_and_restrict_are_conflicts(database: Database) -> None:
    async with database.transaction() as session:
        for statement in (
            "CREATE TABLE rooms (during int4range, EXCLUDE USING gist (during WITH &&))",
            "INSERT INTO rooms VALUES ('[1,5)')",
            PARTS,
            "INSERT INTO readings VALUES ('a', 1, NULL)",
            "INSERT INTO parts VALUES ('a', 1)",
        ):
            await session.execute(text(statement))

    async def overlap() -> None:
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO rooms VALUES ('[2,3)')"))

    excluded = await failure(overlap())
    assert isinstance(excluded, ConflictError)
    assert excluded.details == {
        "conflicting_resource": "rooms",
        "constraint": "rooms_during_excl",
        "columns": ["during"],
    }
    readings = Repository(Reading, database.session_factory)
    restricted = await failure(readings.delete_by_id(("a", 1), hard=True))
    assert isinstance(restricted, ConflictError)
    assert restricted.details["columns"] == ["device", "at"]


async def test_a_stale_row_says_of_which_table(database: Database) -> None:
    stocks = Repository(Stock, database.session_factory)
    row = await stocks.save(Stock(id=1, count=0))
    with pytest.raises(ConflictError) as caught:  # noqa: PT012
        async with database.transaction() as session:
            with bind_session(session):
                mine = await stocks.get(1)
                async with database.transaction() as other:
                    await other.execute(text("UPDATE stocks SET version = 9"))
                mine.count = 2
                await session.flush()
    assert caught.value.details == {"conflicting_resource": "stocks"}
    assert row.version == 1
