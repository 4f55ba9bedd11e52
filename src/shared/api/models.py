"""The envelope of every JSON answer.

`ApiResponse` holds ``data`` or ``error``, always ``meta``, and for lists ``pagination`` and
``links``. A part that is absent is left out, not written as null.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from enum import Enum
from typing import Annotated, Any, Generic, Self, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

T = TypeVar("T")


def _absent(value: object) -> bool:
    return value is None


def _with_offset(value: datetime) -> datetime:
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


class Meta(BaseModel):
    """Which request this answers, and when. A timestamp without an offset is taken as UTC."""

    request_id: str = Field(description="Unique request identifier")
    correlation_id: str | None = Field(
        default=None, description="Distributed tracing ID", exclude_if=_absent
    )
    timestamp: Annotated[datetime, AfterValidator(_with_offset)] = Field(
        default_factory=lambda: datetime.now(UTC), description="Response timestamp in UTC"
    )


class Pagination(BaseModel):
    """Where a page stands in its list. Pages count from 1; an empty list has none."""

    page: int = Field(ge=1)
    limit: int = Field(ge=1, le=1000)
    total: int = Field(ge=0)
    pages: int = Field(ge=0)
    has_next: bool
    has_previous: bool

    @classmethod
    def create(cls, page: int, limit: int, total: int) -> Self:
        """Work out the rest from page number, page size and the number of items in all.

        Raises:
            pydantic.ValidationError: a number outside the bounds of its field.
        """
        pages = -(-max(total, 0) // max(limit, 1))
        return cls(
            page=page,
            limit=limit,
            total=total,
            pages=pages,
            has_next=page < pages,
            has_previous=page > 1,
        )


class Links(BaseModel):
    """Where to go from here; each is a URL with an encoded query."""

    self: str
    next: str | None = Field(default=None, exclude_if=_absent)
    previous: str | None = Field(default=None, exclude_if=_absent)
    first: str | None = Field(default=None, exclude_if=_absent)
    last: str | None = Field(default=None, exclude_if=_absent)

    @classmethod
    def create_paginated(
        cls, base_url: str, page: int, limit: int, pages: int, **query_params: Any
    ) -> Self:
        """Link one page of a list to the others.

        ``first`` and ``last`` always lead to a page that can be asked for: those of an empty list
        are both page 1. ``previous`` of a page behind the end is the last page there is.

        Args:
            base_url: the list's URL. Its own query stays, but for what is given here.
            page: this page, from 1.
            limit: items on a page.
            pages: how many pages there are, 0 for an empty list.
            **query_params: the other parameters of the query. A list is repeated, ``None`` is
                left out.
        """
        parts = urlsplit(base_url)
        given = {name: _query_values(value) for name, value in query_params.items()}
        given = {name: values for name, values in given.items() if values}
        kept = [
            pair
            for pair in parse_qsl(parts.query, keep_blank_values=True)
            if pair[0] not in given and pair[0] not in {"page", "limit"}
        ]
        others = kept + [(name, value) for name, values in given.items() for value in values]

        def link(number: int) -> str:
            query = urlencode([("page", str(number)), ("limit", str(limit)), *others])
            return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))

        last = max(pages, 1)
        return cls(
            self=link(page),
            next=link(page + 1) if page < pages else None,
            previous=link(min(page - 1, last)) if page > 1 else None,
            first=link(1),
            last=link(last),
        )


def _query_values(value: object) -> list[str]:
    if value is None:
        return []
    if isinstance(value, Enum):
        return _query_values(value.value)
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, date | time):
        return [value.isoformat()]
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [text for item in value for text in _query_values(item)]
    return [value.decode() if isinstance(value, bytes) else str(value)]


class ErrorDetail(BaseModel):
    """What went wrong: a code for programs, a message for people, details where there are any."""

    code: str
    message: str
    details: dict[str, Any] | None = Field(default=None, exclude_if=_absent)


class ApiResponse(BaseModel, Generic[T]):
    """The envelope. ``data`` of a success is written even when it is null."""

    data: T | None = None
    error: ErrorDetail | None = Field(default=None, exclude_if=_absent)
    meta: Meta
    pagination: Pagination | None = Field(default=None, exclude_if=_absent)
    links: Links | None = Field(default=None, exclude_if=_absent)

    # Pydantic would put a return type in the place of the model's schema in OpenAPI.
    @model_serializer(mode="wrap")
    def _without_data_of_an_error(self, handler: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def] # noqa: ANN202
        envelope = handler(self)
        if self.error is not None and self.data is None and isinstance(envelope, dict):
            envelope.pop("data", None)
        return envelope


class ErrorResponse(BaseModel):
    """The envelope of an error, as OpenAPI shows it."""

    error: ErrorDetail
    meta: Meta
