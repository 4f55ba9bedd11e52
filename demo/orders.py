"""Orders as Shopify sends them: made up, or read from a file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from services.webhook import shopify
from services.webhook.settings import ShopifySettings
from shared.events.credit import OrderUpdatedPayload

if TYPE_CHECKING:
    import random
    from pathlib import Path

__all__ = ["BrokenLine", "OrderVersion", "make_orders", "read_orders"]

DAY = datetime(2026, 11, 23, tzinfo=UTC)
_LIMIT_BYTES = 1_048_576  # what the webhook service takes
_GOODS = (
    ("Felt hat", "49.00"),
    ("Straw hat", "35.50"),
    ("Beret", "24.90"),
    ("Hat box", "12.00"),
    ("Ribbon", "3.75"),
    ("Feather", "0.90"),
    ("Brush", "8.20"),
)


@dataclass(frozen=True, slots=True)
class OrderVersion:
    """An order as it stood at one time, and the webhook body that says so."""

    order_id: str
    updated_at: datetime
    cancelled: bool
    lines: tuple[str, ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line of a file that is not an order. Numbers start at 1."""

    number: int
    reason: str


def make_orders(count: int, chance: random.Random) -> list[OrderVersion]:
    """Make up `count` orders of one to four lines; every fourth is changed later."""
    versions = []
    for number in range(1, count + 1):
        placed = DAY + timedelta(minutes=chance.randrange(24 * 60))
        lines = [_line(number, place, chance) for place in range(1, chance.randint(1, 4) + 1)]
        versions.append(_version(number, placed, lines))
        if number % 4 == 0:
            more = [*lines, _line(number, len(lines) + 1, chance)]
            versions.append(_version(number, placed + timedelta(minutes=5), more))
        if number % 25 == 0:
            cancelled = placed + timedelta(minutes=10)
            versions.append(_version(number, cancelled, lines, cancelled_at=cancelled))
    return versions


def read_orders(path: Path) -> tuple[list[OrderVersion], list[BrokenLine]]:
    """Read a file of JSON lines, each the body of an ``orders/*`` webhook, byte for byte.

    What the webhook service would refuse is a broken line. Empty lines are passed over.

    Raises:
        OSError: the file cannot be read.
    """
    versions, broken = [], []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            body = line.removeprefix(b"\xef\xbb\xbf").strip()
            if not body:
                continue
            try:
                versions.append(_read(body))
            except ValueError as error:
                broken.append(BrokenLine(number, _reason(error)))
    return versions, broken


def _read(body: bytes) -> OrderVersion:
    if len(body) > _LIMIT_BYTES:
        raise ValueError(f"{len(body):,} bytes; at most {_LIMIT_BYTES:,}")
    fact = shopify.read("orders/updated", body, "any.myshopify.com", ShopifySettings())
    assert fact is not None  # noqa: S101 - every order tells something
    order = fact.payload
    assert isinstance(order, OrderUpdatedPayload)  # noqa: S101 - by its topic
    return OrderVersion(
        order_id=order.order_id,
        updated_at=order.updated_at,
        cancelled=order.cancelled_at is not None,
        lines=tuple(line.line_id for line in order.lines),
        body=body,
    )


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    mistake = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in mistake["loc"])
    return f"{field}: {mistake['msg']}" if field else mistake["msg"]


def _line(order: int, place: int, chance: random.Random) -> dict[str, object]:
    title, price = chance.choice(_GOODS)
    return {
        "id": 5_000_000_000 + order * 10 + place,
        "title": title,
        "sku": title.upper().replace(" ", "-"),
        "quantity": chance.randint(1, 3),
        "price": price,
    }


def _version(
    number: int,
    updated_at: datetime,
    lines: list[dict[str, object]],
    *,
    cancelled_at: datetime | None = None,
) -> OrderVersion:
    return _read(
        to_json(
            {
                "id": 4_500_000_000 + number,
                "name": f"#{1000 + number}",
                "order_number": 1000 + number,
                "currency": "EUR",
                "updated_at": updated_at,
                "cancelled_at": cancelled_at,
                "line_items": lines,
            }
        )
    )


def spoiled(version: OrderVersion) -> bytes:
    """Return the body of an order cut off in the middle."""
    assert from_json(version.body)  # noqa: S101 - it was whole
    return version.body[: len(version.body) // 2]
