"""Columns that hold pydantic models, and keys that sort by time."""

from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import text

from shared.database import Database, JsonModel, Repository
from shared.errors import DatabaseError, ValidationError
from tests.database.models import Address, Order
from tests.database.orders import order


async def test_a_model_goes_in_and_comes_out(database: Database) -> None:
    orders = Repository(Order, database.session_factory)
    address: Any = {"street": "Main", "lines": ["a"]}
    saved = await orders.save(order("1", address=address))
    assert saved.address == Address(street="Main", lines=("a",)), "a dict is as good"
    saved.address = saved.address.model_copy(update={"street": "Second"})
    updated = await orders.update(saved)
    assert updated.address == Address(street="Second", lines=("a",))
    found = await orders.list(Order.address["street"].astext == "Second")
    assert [row.number for row in found] == ["1"]
    updated.address = None
    await orders.update(updated)
    assert await orders.count(address=None) == 1


async def test_what_does_not_fit_is_refused_on_both_ways(database: Database) -> None:
    orders = Repository(Order, database.session_factory)
    wrong: Any
    nothing: Any = {"street": None}
    for wrong in ({"street": 3}, {}, "Main", Address.model_construct(**nothing)):
        for write in (orders.save, lambda row: orders.insert_many([row])):
            with pytest.raises(ValidationError) as caught:
                await write(order("1", address=wrong))
            assert caught.value.details["validation_errors"][0]["field"] in {"street", ""}
        with pytest.raises(ValidationError):
            await orders.copy([order("1", address=wrong)])
    saved = await orders.save(order("1", address=Address(street="Main")))
    async with database.transaction() as session:
        await session.execute(text("""UPDATE orders SET address = '{"street": 3}'"""))
    with pytest.raises(DatabaseError, match="not a valid Address: street") as failed:
        await orders.get(saved.id)
    assert failed.value.details["retryable"] is False


def test_a_model_that_could_change_unseen_is_refused() -> None:
    class Open(BaseModel):
        street: str

    with pytest.raises(TypeError, match=r"ConfigDict\(frozen=True\)"):
        JsonModel(Open)


async def test_keys_are_made_here_and_by_postgresql(database: Database) -> None:
    orders = Repository(Order, database.session_factory)
    first = await orders.save(order("1"))
    async with database.transaction() as session:
        await session.execute(
            text(
                "INSERT INTO orders (merchant_id, merchant_domain, number, status, tags, version)"
                " SELECT merchant_id, merchant_domain, '2', status, tags, version FROM orders"
            )
        )
    last = await orders.save(order("3"))
    rows = await orders.list(order_by="id")
    assert [row.number for row in rows] == ["1", "2", "3"]
    assert [row.id.version for row in rows] == [7, 7, 7]
    assert (rows[0].id, rows[2].id) == (first.id, last.id)
