"""Money: exact, of one currency, in JSON and in columns."""

from decimal import ROUND_UP, Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter
from pydantic import ValidationError as PydanticError

from shared.database import Database, Money, Repository
from shared.errors import ValidationError
from tests.database.models import Order
from tests.database.orders import order

UNITS = st.integers(-(10**15), 10**15)
CURRENCY = st.sampled_from(["EUR", "JPY", "KWD", "CLF"])


@given(UNITS, UNITS, CURRENCY)
def test_arithmetic_is_that_of_the_smallest_units(a: int, b: int, currency: str) -> None:
    left, right = Money.from_minor_units(a, currency), Money.from_minor_units(b, currency)
    assert (left + right).minor_units == a + b
    assert (left - right).minor_units == a - b
    assert (left * 3).minor_units == (3 * left).minor_units == 3 * a
    assert sum([left, right, right]).minor_units == a + 2 * b  # type: ignore[union-attr]
    assert ((-left).minor_units, abs(left).minor_units, bool(left)) == (-a, abs(a), a != 0)
    assert (left < right, left <= right, left > right, left >= right) == (
        a < b,
        a <= b,
        a > b,
        a >= b,
    )
    assert (left == right) is (a == b)
    assert TypeAdapter(Money).validate_json(TypeAdapter(Money).dump_json(left)) == left


@given(UNITS, st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any))
def test_the_parts_add_up_to_the_whole(units: int, weights: list[int]) -> None:
    whole = Money.from_minor_units(units, "EUR")
    parts = whole.split(*weights)
    assert sum(part.minor_units for part in parts) == units
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part.minor_units - units * weight / sum(weights)) <= 1
        assert weight or not part


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        ("1.005", "EUR"),
        ("0.1", "JPY"),
        ("1.2345", "KWD"),
        ("x", "EUR"),
        ("NaN", "EUR"),
        ("1", "EURO"),
        ("1", "eur"),
        ("1", "XXX"),
        (True, "EUR"),
        (1.5, "EUR"),
        ("Infinity", "EUR"),
    ],
)
def test_what_is_no_money_is_refused(amount: Any, currency: str) -> None:
    with pytest.raises(ValidationError):
        Money(amount, currency)


def test_currencies_do_not_mix() -> None:
    euro, dollar = Money(1, "EUR"), Money(1, "USD")
    assert euro != dollar
    for mix in (
        lambda: euro + dollar,
        lambda: euro - dollar,
        lambda: euro < dollar,
        lambda: euro <= dollar,
        lambda: euro > dollar,
        lambda: euro >= dollar,
        lambda: sum([euro, dollar]),
    ):
        with pytest.raises(ValidationError, match="do not mix"):
            mix()
    for wrong in (lambda: euro + 1, lambda: euro * any_(1.5), lambda: euro * any_(Decimal(2))):
        with pytest.raises(TypeError):
            wrong()


def any_(value: Any) -> Any:
    return value


def test_rounding_is_said() -> None:
    assert Money("10.00", "EUR").times("0.125") == Money("1.25", "EUR")
    assert Money("0.10", "EUR").times("0.25") == Money("0.02", "EUR")
    assert Money("0.10", "EUR").times("0.25", ROUND_UP) == Money("0.03", "EUR")
    assert Money.rounded("1.005", "JPY") == Money(1, "JPY")
    assert str(Money("1.5", "EUR")) == "1.50 EUR"
    assert str(Money("-0.00", "EUR")) == "0.00 EUR"
    assert hash(Money("1.5", "EUR")) == hash(Money("1.50", "EUR"))
    with pytest.raises(ValueError, match="weights"):
        Money(1, "EUR").split(0, 0)


class Bill(BaseModel):
    total: Money


def test_in_json_an_amount_is_text() -> None:
    bill = Bill(total=Money("12.5", "EUR"))
    assert bill.model_dump_json() == '{"total":{"amount":"12.50","currency":"EUR"}}'
    assert Bill.model_validate_json(bill.model_dump_json()) == bill
    assert Bill.model_validate(bill.model_dump()) == bill
    assert Bill.model_validate({"total": {"amount": Decimal("12.5"), "currency": "EUR"}}) == bill
    assert Bill.model_validate_json('{"total":{"amount":"3","currency":"JPY"}}').total == Money(
        3, "JPY"
    )
    schema = Bill.model_json_schema()["properties"]["total"]
    assert schema["properties"]["amount"]["type"] == "string"
    for bad in ('"12.50"', '{"amount":12.5,"currency":"EUR"}', '{"amount":"1","currency":"ABC"}'):
        with pytest.raises(PydanticError):
            Bill.model_validate_json(f'{{"total":{bad}}}')


async def test_in_a_table_it_is_two_columns(database: Database) -> None:
    orders = Repository(Order, database.session_factory)
    saved = await orders.save(order("1", total=Money("12.5", "EUR")))
    found = await orders.get(saved.id)
    assert found.total == Money("12.50", "EUR")
    assert (str(found.total), found.total_amount) == ("12.50 EUR", Decimal("12.5"))  # type: ignore[attr-defined]
    found.total = None
    assert (await orders.update(found)).total is None
    found = await orders.get(saved.id)
    found.total = Money(7, "JPY")
    assert (await orders.update(found)).total == Money(7, "JPY")
