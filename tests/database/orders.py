"""Orders of two merchants, for tests that tell them apart."""

from typing import Any
from uuid import UUID

from shared.database import Money
from tests.database.models import Line, Order

__all__ = ["OTHER", "SHOP", "line", "order"]

SHOP = UUID("018f4e9a-0000-7000-8000-000000000001")
OTHER = UUID("018f4e9a-0000-7000-8000-000000000002")


def order(number: str = "1", **values: Any) -> Order:
    values = {"merchant_id": SHOP, "merchant_domain": "a.example.com"} | values
    return Order(number=number, **values)


def line(id: int, of: Order, sku: str = "lamp", **values: Any) -> Line:  # noqa: A002
    values = {"merchant_id": of.merchant_id, "merchant_domain": "a.example.com"} | values
    return Line(id=id, order_id=of.id, sku=sku, **values)


EUR = Money("12.50", "EUR")
