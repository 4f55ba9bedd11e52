"""Pages of a list: numbered, or one after another by the place of a row in the order."""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID

from pydantic import TypeAdapter
from pydantic import ValidationError as PydanticError
from pydantic_core import from_json, to_json
from sqlalchemy import ColumnElement, and_, false, literal, or_, tuple_

from shared.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import InstrumentedAttribute


T = TypeVar("T")

_MAX_CURSOR = 8192  # characters; what is longer was not made here
_MAC_BYTES = 16
_MIN_SECRET_BYTES = 16

Order = list[tuple["InstrumentedAttribute[Any]", bool]]
"""Columns to order by, each with whether it descends."""


@dataclass(frozen=True, slots=True)
class NumberedPage(Generic[T]):
    """One page of a list that is counted; its fields are those of `shared.api.Pagination`.

    ``paginated_response(page.items, page.page, page.limit, page.total, base_url)`` answers with it.
    """

    items: list[T]
    page: int
    """From 1."""
    limit: int
    total: int
    """Rows in all pages, when this one was read."""

    @property
    def pages(self) -> int:
        """How many pages there are; 0 for an empty list."""
        return -(-self.total // self.limit)

    @property
    def has_next(self) -> bool:
        """Whether a page follows."""
        return self.page < self.pages

    @property
    def has_previous(self) -> bool:
        """Whether a page comes before."""
        return self.page > 1

    has_more = has_next


@dataclass(frozen=True, slots=True)
class KeysetPage(Generic[T]):
    """One page of a list, and the cursors of those beside it.

    The cursors are places between rows: rows that are inserted or deleted meanwhile neither shift
    what follows nor show a row twice. A cursor is text for a URL, which the caller can read but not
    change.

    >>> rows = [Order(number=f"{n}", total=Money(n, "EUR")) for n in range(3)]
    >>> _ = await orders.insert_many(rows)
    >>> page = await orders.page_by_key(order_by="number", limit=2)
    >>> [order.number for order in page.items], page.has_more
    (['0', '1'], True)
    >>> page.links("https://shop.example/orders?limit=2")["first"]
    'https://shop.example/orders?limit=2'
    """

    items: list[T]
    limit: int
    next: str | None
    """The cursor of the page behind; None at the end."""
    previous: str | None
    """The cursor of the page before; None at the beginning."""

    @property
    def has_more(self) -> bool:
        """Whether a page follows."""
        return self.next is not None

    def links(self, url: str, *, parameter: str = "cursor") -> dict[str, str]:
        """Return the URLs of this page's neighbours: ``Links(**page.links(str(request.url)))``.

        Args:
            url: of this page; its query stays, but for the cursor.
            parameter: the name of the cursor in the query.
        """
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)

        def link(cursor: str | None) -> str:
            kept = [(name, value) for name, value in query if name != parameter]
            kept += [] if cursor is None else [(parameter, cursor)]
            return urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(kept), ""))

        links = {"self": url, "first": link(None)}
        if self.next is not None:
            links["next"] = link(self.next)
        if self.previous is not None:
            links["previous"] = link(self.previous)
        return links


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in an order: behind a row with these values, or before it."""

    values: tuple[Any, ...]
    backward: bool = False
    inclusive: bool = False
    """Whether a row at this very place is behind it too."""

    def beyond(self, order: Order) -> ColumnElement[bool]:
        """Return the condition of the rows on the far side of this place.

        NULL is the greatest value, as PostgreSQL sorts it.
        """
        columns = [column for column, _ in order]
        descending = {down != self.backward for _, down in order}
        plain = not any(map(_nullable, columns))
        if plain and len(descending) == 1:
            # As one comparison of rows, which an index on these columns answers directly.
            place, row = tuple_(*_bound(columns, self.values)), tuple_(*columns)
            if descending == {True}:
                return row <= place if self.inclusive else row < place
            return row >= place if self.inclusive else row > place
        alternatives: list[ColumnElement[bool]] = []
        equal: list[ColumnElement[bool]] = []
        for (column, down), value in zip(order, self.values, strict=True):
            alternatives.append(and_(*equal, _further(column, value, down=down != self.backward)))
            equal.append(column.is_(None) if value is None else column == value)
        if self.inclusive:
            alternatives.append(and_(*equal))
        beyond = or_(*alternatives)
        (first, down), value = order[0], self.values[0]
        if _nullable(first):
            return beyond
        # Said once more in a form that an index on the first column answers.
        return and_(first <= value if down != self.backward else first >= value, beyond)


class CursorSigner:
    """Writes cursors as text and reads them, if it was it that wrote them.

    Args:
        secret: the same in all replicas, at least 16 bytes. Cursors of another secret are refused.

    Raises:
        ValueError: the secret is too short.
    """

    def __init__(self, secret: str) -> None:
        key = secret.encode()
        if len(key) < _MIN_SECRET_BYTES:
            raise ValueError(f"a cursor secret must have at least {_MIN_SECRET_BYTES} bytes")
        # A key of its own, should the secret serve other ends as well.
        self._key = hmac.digest(key, b"shared.database cursor 1", hashlib.sha256)

    def __repr__(self) -> str:
        return "<CursorSigner>"

    def write(self, cursor: Cursor, order: Order, audience: Sequence[object]) -> str:
        """Return the cursor as text: letters, digits, ``-`` and ``_``.

        Args:
            cursor: the place.
            order: the order it is a place in.
            audience: for whom; reading it for anyone else fails.
        """
        place = [cursor.backward, cursor.inclusive, *map(_plain, cursor.values)]
        body = to_json(place, bytes_mode="base64")
        return urlsafe_b64encode(self._mac(body, order, audience) + body).decode().rstrip("=")

    def read(self, text: str, order: Order, audience: Sequence[object]) -> Cursor:
        """Return the cursor that `write` was given.

        Raises:
            ValidationError: it was not written here, for this audience and this order.
        """
        try:
            if len(text) > _MAX_CURSOR:
                raise ValueError
            signed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
            mac, body = signed[:_MAC_BYTES], signed[_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(body, order, audience)):
                raise ValueError
            backward, inclusive, *values = from_json(body)
            return Cursor(
                tuple(
                    _typed(column, value) for (column, _), value in zip(order, values, strict=True)
                ),
                backward,
                inclusive,
            )
        except (ValueError, Base64Error, PydanticError):
            raise ValidationError(
                "this cursor was not given out for this list in this order: begin without one",
                field="cursor",
            ) from None

    def _mac(self, body: bytes, order: Order, audience: Sequence[object]) -> bytes:
        names = [f"-{column.key}" if down else column.key for column, down in order]
        signed = to_json([[str(one) for one in audience], names]) + b"\n" + body
        return hmac.digest(self._key, signed, hashlib.sha256)[:_MAC_BYTES]


def sortable(order: Order) -> None:
    """Raise unless cursors can hold values of these columns.

    Raises:
        ValidationError: a column of a type without an order that a cursor could hold.
    """
    for column, _ in order:
        try:
            _adapter(column)
        except (NotImplementedError, AttributeError):
            raise ValidationError(
                f"pages cannot be ordered by {column.key}", field="order_by", value=column.key
            ) from None


def place_of(row: object, order: Order) -> tuple[Any, ...]:
    """Return the values of a row in the columns of the order."""
    return tuple(getattr(row, column.key) for column, _ in order)


def ordering(order: Order, *, backward: bool = False) -> list[ColumnElement[Any]]:
    """Return the ORDER BY."""
    return [column.desc() if down != backward else column.asc() for column, down in order]


_SORTABLE = frozenset(
    {bool, bytes, date, datetime, Decimal, float, int, str, time, timedelta, UUID}
)
_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(column: InstrumentedAttribute[Any]) -> TypeAdapter[Any]:
    kind = column.type.python_type
    if not (kind in _SORTABLE or issubclass(kind, Enum)):
        raise NotImplementedError
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(
            kind | None,
            config={"allow_inf_nan": True, "val_json_bytes": "base64"},
        )
    return _adapters[kind]


def _plain(value: object) -> object:
    # JSON has no word for them, and null is NULL.
    return str(value) if isinstance(value, float) and value - value != 0 else value


def _typed(column: InstrumentedAttribute[Any], value: object) -> Any:
    # From JSON, where a date or a UUID is text.
    return _adapter(column).validate_json(to_json(value))


def _nullable(column: InstrumentedAttribute[Any]) -> bool:
    return bool(getattr(column.property.columns[0], "nullable", True))


def _bound(columns: Sequence[InstrumentedAttribute[Any]], values: Sequence[Any]) -> list[Any]:
    return [literal(value, column.type) for column, value in zip(columns, values, strict=True)]


def _further(column: InstrumentedAttribute[Any], value: Any, *, down: bool) -> ColumnElement[bool]:
    if value is None:
        return column.is_not(None) if down else false()
    further: ColumnElement[bool] = column < value if down else column > value
    return or_(further, column.is_(None)) if _nullable(column) and not down else further
