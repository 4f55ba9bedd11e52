"""From the called service's envelope to a value, or to an error of our own."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from shared.errors import (
    DomainError,
    GlamBaseError,
    UnauthorizedError,
    UpstreamServiceError,
    catalogue,
    classify_http_error,
)

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")

_SERVER_ERROR = 500
_SHOWN_MISTAKES = 3


class Links(BaseModel):
    """Where a list goes on."""

    next: str | None = None


class Envelope(BaseModel, Generic[T]):
    """What a caller reads of a successful answer; the rest is left alone."""

    data: T
    links: Links | None = None


class _Error(BaseModel):
    code: str
    message: str
    details: dict[str, Any] | None = None


class _ErrorEnvelope(BaseModel):
    error: _Error


@lru_cache(maxsize=256)
def _envelope_of(answer: Any) -> type[Envelope[Any]]:
    return Envelope[answer]


def read_answer(response: httpx.Response, answer: Any, *, service: str) -> Envelope[Any]:
    """Read the envelope of an answer, with ``data`` as ``answer`` says.

    Raises:
        UpstreamServiceError: the answer is something else; not retryable. It names the fields that
            are wrong, never what stands in them.
    """
    try:
        return _envelope_of(answer).model_validate_json(response.content)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_context=False, include_input=False)
    request = response.request
    raise UpstreamServiceError(
        f"{service} sent an answer of another shape than expected",
        service=service,
        retryable=False,
        upstream_service=service,
        upstream_status=response.status_code,
        upstream_error="; ".join(
            f"{'.'.join(map(str, mistake['loc'])) or 'body'}: {mistake['type']}"
            for mistake in mistakes[:_SHOWN_MISTAKES]
        ),
        endpoint=f"{request.method} {request.url.path}",
    )


def error_of_answer(fault: httpx.HTTPStatusError, *, service: str) -> GlamBaseError:
    """Return the error that an answer without success stands for.

    A 4xx whose code is known here becomes the same error as over there, with its message and
    details. Anything else is a `RateLimitedError` or an `UpstreamServiceError` that carries the
    code in ``upstream_error``. A 401 is among those: it is our own token that was refused, not
    our caller's.
    """
    classified = classify_http_error(fault, service_name=service)
    body = _read_error(fault.response)
    if body is None:
        return classified
    status = fault.response.status_code
    kind = _known(body.code) if status < _SERVER_ERROR else None
    if kind is not None and not issubclass(kind, UnauthorizedError):
        details = {"retry_after": classified.details.get("retry_after"), **(body.details or {})}
        try:
            return kind(body.message, status=status, details=details, cause=fault)
        except TypeError:  # a class with a constructor of its own
            return classified
    if isinstance(classified, UpstreamServiceError):
        classified.upstream_error = classified.details["upstream_error"] = body.code
    return classified


def _read_error(response: httpx.Response) -> _Error | None:
    try:
        return _ErrorEnvelope.model_validate_json(response.content).error
    except ValidationError:
        return None


def _known(code: str) -> type[DomainError] | None:
    for entry in catalogue():  # a class that shares its parent's code comes after the parent
        if entry.code == code and issubclass(entry.error, DomainError):
            return entry.error
    return None
