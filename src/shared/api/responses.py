"""Envelopes in one call. Ids that are not given are those of the current request."""

from __future__ import annotations

from typing import Any, TypeVar

from shared.api.models import ApiResponse, ErrorDetail, Links, Meta, Pagination
from shared.context import current, new_request_id

T = TypeVar("T")


def create_response(
    data: T | None = None,
    error: ErrorDetail | None = None,
    request_id: str | None = None,
    correlation_id: str | None = None,
    pagination: Pagination | None = None,
    links: Links | None = None,
) -> ApiResponse[T]:
    """Put data or an error into the envelope."""
    return ApiResponse(
        data=data,
        error=error,
        meta=create_meta(request_id, correlation_id),
        pagination=pagination,
        links=links,
    )


def create_meta(request_id: str | None = None, correlation_id: str | None = None) -> Meta:
    """Name the request that is answered: the one given, else the current one."""
    context = current()
    if context is not None:
        request_id = request_id or context.request_id
        correlation_id = correlation_id or context.correlation_id
    return Meta(request_id=request_id or new_request_id(), correlation_id=correlation_id)


def success_response(
    data: T,
    request_id: str | None = None,
    correlation_id: str | None = None,
    links: Links | None = None,
) -> ApiResponse[T]:
    """Put data into the envelope.

    >>> success_response({"number": "7"}, request_id="req_7").model_dump(mode="json")
    {'data': {'number': '7'}, 'meta': {'request_id': 'req_7', 'timestamp': '...'}}
    """
    return create_response(
        data=data, request_id=request_id, correlation_id=correlation_id, links=links
    )


def error_response(
    code: str,
    message: str,
    details: dict[str, Any] | None = None,
    request_id: str | None = None,
    correlation_id: str | None = None,
) -> ApiResponse[None]:
    """Put an error into the envelope. It sets no HTTP status: raising the error does that too."""
    return create_response(
        error=ErrorDetail(code=code, message=message, details=details),
        request_id=request_id,
        correlation_id=correlation_id,
    )


def paginated_response(
    data: list[T],
    page: int,
    limit: int,
    total: int,
    base_url: str,
    request_id: str | None = None,
    correlation_id: str | None = None,
    **query_params: Any,
) -> ApiResponse[list[T]]:
    """Put one page of a list into the envelope, with its place in the list and links to the others.

    >>> answer = paginated_response(["7", "8"], page=1, limit=2, total=3, base_url="/invoices")
    >>> answer.pagination.pages, answer.links.next
    (2, '/invoices?page=2&limit=2')

    Args:
        data: the items of this page.
        page: this page, from 1.
        limit: items on a page, 1 to 1000.
        total: items in all pages.
        base_url: the list's URL; see `Links.create_paginated`.
        request_id: stands in for the current request's id.
        correlation_id: stands in for the current correlation id.
        **query_params: the other parameters of the list's query, kept in every link.

    Raises:
        pydantic.ValidationError: a number outside the bounds of its field.
    """
    pagination = Pagination.create(page, limit, total)
    return create_response(
        data=data,
        request_id=request_id,
        correlation_id=correlation_id,
        pagination=pagination,
        links=Links.create_paginated(base_url, page, limit, pagination.pages, **query_params),
    )
