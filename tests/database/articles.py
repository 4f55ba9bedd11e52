"""Articles of one tenant."""

from typing import Any
from uuid import UUID

from tests.database.models import Article

__all__ = ["MERCHANT", "article"]

MERCHANT = UUID("018f4e9a-0000-7000-8000-000000000001")


def article(name: str = "lipstick", **values: Any) -> Article:
    values = {"merchant_id": MERCHANT, "merchant_domain": "a.myshopify.com"} | values
    return Article(name=name, **values)
