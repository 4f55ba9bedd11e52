"""What an endpoint may ask for: paging, ids, the client."""

from typing import Annotated, Self

from fastapi import Depends, Query
from pydantic import BaseModel, Field
from starlette.requests import Request

from shared.api.correlation import CorrelationIdDep, get_correlation_id
from shared.context import current, new_request_id, new_trace_id, safe_id

__all__ = [
    "ClientIpDep",
    "CorrelationIdDep",
    "PaginationDep",
    "PaginationParams",
    "RequestContext",
    "RequestContextDep",
    "RequestIdDep",
    "get_client_ip",
    "get_pagination_params",
    "get_request_context",
    "get_request_id",
]


class PaginationParams(BaseModel):
    """Which page of a list is asked for. Pages count from 1."""

    page: int = Field(default=1, ge=1)
    limit: int = Field(default=50, ge=1, le=1000)

    @property
    def offset(self) -> int:
        """How many items stand before this page."""
        return (self.page - 1) * self.limit


def get_pagination_params(
    page: int = Query(1, ge=1, description="Page number"),
    limit: int = Query(50, ge=1, le=1000, description="Items per page"),
) -> PaginationParams:
    """Read ``page`` and ``limit`` from the query."""
    return PaginationParams(page=page, limit=limit)


PaginationDep = Annotated[PaginationParams, Depends(get_pagination_params)]
"""The page that the query asks for (``page``, ``limit``); what is out of bounds is answered 422.

>>> @app.get("/invoices")
... async def invoices(asked: PaginationDep) -> int:
...     return asked.offset
>>> (await client.get("/invoices?page=3&limit=20")).json()
40
>>> (await client.get("/invoices?page=0")).status_code
422
"""


def get_request_id(request: Request) -> str:
    """Return the request's id: the edge's, and without an edge the caller's if safe.

    It is the same for every call in one request.
    """
    request_id = getattr(request.state, "request_id", None)
    if request_id is None:
        request_id = safe_id(request.headers.get("X-Request-ID")) or new_request_id()
        request.state.request_id = request_id
    return str(request_id)


RequestIdDep = Annotated[str, Depends(get_request_id)]


class RequestContext(BaseModel):
    """The ids of a request, with what was asked."""

    request_id: str
    trace_id: str
    correlation_id: str
    method: str
    path: str

    @classmethod
    def from_request(cls, request: Request) -> Self:
        """Gather them from a request."""
        trace_id = getattr(request.state, "trace_id", None)
        if trace_id is None:
            context = current()
            trace_id = context.trace.trace_id if context else new_trace_id()
            request.state.trace_id = trace_id
        return cls(
            request_id=get_request_id(request),
            trace_id=trace_id,
            correlation_id=get_correlation_id(request),
            method=request.method,
            path=request.url.path,
        )


def get_request_context(request: Request) -> RequestContext:
    """Gather the ids of the request, with what was asked."""
    return RequestContext.from_request(request)


RequestContextDep = Annotated[RequestContext, Depends(get_request_context)]


def get_client_ip(request: Request) -> str:
    """Return the client's address, seen through trusted proxies; ``unknown`` without a socket."""
    return request.client.host if request.client else "unknown"


ClientIpDep = Annotated[str, Depends(get_client_ip)]
