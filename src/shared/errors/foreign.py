"""From foreign exceptions to our own."""

from __future__ import annotations

import re
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from inspect import iscoroutinefunction
from math import ceil
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from shared.errors.base import (
    GlamBaseError,
    InfrastructureError,
    RateLimitedError,
    RequestTimeoutError,
    ServiceUnavailableError,
)
from shared.errors.infrastructure import UpstreamServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import httpx

T = TypeVar("T")
P = ParamSpec("P")
E = TypeVar("E", bound=GlamBaseError)

_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
# RFC 9110 section 15.5.9 and RFC 8470 section 5.2: the same request may be sent again.
_RETRYABLE_CLIENT_ERRORS = frozenset({408, 425})
# RFC 9110 sections 15.6.2 and 15.6.6: the server will never know how.
_PERMANENT_SERVER_ERRORS = frozenset({501, 505})

_SECONDS = re.compile(r"[0-9]{1,9}")


def wrap_external_error(
    error_class: type[E], message: str, *, cause: Exception, **kwargs: Any
) -> E:
    """Return an ``error_class`` that stands for ``cause`` and names it as its cause.

    >>> def load(path: str) -> bytes:
    ...     try:
    ...         return Path(path).read_bytes()
    ...     except OSError as error:
    ...         raise wrap_external_error(NotFoundError, "No such template", cause=error)
    >>> load("/nowhere")
    NotFoundError: No such template
    """
    return error_class(message, cause=cause, **kwargs)


def classify_http_error(
    exc: httpx.HTTPError, *, service_name: str = "upstream"
) -> InfrastructureError | RateLimitedError:
    """Return our own error for one of httpx's, saying whether trying again can help.

    The upstream's body, the query and the credentials of the URL stay out of the error.
    """
    import httpx  # noqa: PLC0415 - errors are imported by everything, httpx by few

    endpoint = _endpoint(exc)
    if isinstance(exc, httpx.HTTPStatusError):
        return _from_answer(exc, service_name, endpoint)
    if isinstance(exc, httpx.TimeoutException):
        return RequestTimeoutError(
            f"{service_name} did not answer in time",
            service=service_name,
            operation=endpoint,
            cause=exc,
        )
    if isinstance(exc, httpx.TransportError) and not isinstance(exc, httpx.UnsupportedProtocol):
        return ServiceUnavailableError(
            f"{service_name} cannot be reached", service=service_name, endpoint=endpoint, cause=exc
        )
    return UpstreamServiceError(
        f"The request to {service_name} failed",
        service=service_name,
        retryable=False,
        upstream_service=service_name,
        upstream_error=type(exc).__name__,
        endpoint=endpoint,
        cause=exc,
    )


def is_retryable_error(exc: BaseException) -> bool:
    """Say whether the same call, made again, may succeed.

    An infrastructure error says so itself; a rate limit if the wait is known. Of foreign
    exceptions, httpx's are classified, and timeouts and broken connections are retryable.
    """
    if isinstance(exc, InfrastructureError):
        return exc.retryable
    if isinstance(exc, RateLimitedError):
        return exc.retry_after is not None
    # What raised one of httpx's errors has loaded httpx; nobody else has to.
    httpx = sys.modules.get("httpx")
    if httpx is not None and isinstance(exc, httpx.HTTPError):
        return is_retryable_error(classify_http_error(exc))
    return isinstance(exc, TimeoutError | ConnectionError)


def with_error_mapping(
    mappings: Mapping[type[Exception], type[GlamBaseError]],
    *,
    default_error: type[GlamBaseError] = InfrastructureError,
    default_message: str = "Operation failed",
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Translate what a function raises, be it ``async`` or not.

    Our own errors pass unchanged. A mapped exception, or one of its subclasses, becomes the
    error of its nearest mapped class with its own words; any other becomes ``default_error`` with
    ``default_message``. The original is the cause.
    """

    @contextmanager
    def translating() -> Iterator[None]:
        try:
            yield
        except GlamBaseError:
            raise
        except Exception as exc:
            for kind in type(exc).__mro__:
                if kind in mappings:
                    raise mappings[kind](str(exc) or default_message, cause=exc) from exc
            raise default_error(default_message, cause=exc) from exc

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if iscoroutinefunction(function):

            @wraps(function)
            async def call_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with translating():
                    return await function(*args, **kwargs)

            return cast("Callable[P, T]", call_async)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with translating():
                return function(*args, **kwargs)

        return call

    return decorate


def _from_answer(
    exc: httpx.HTTPStatusError, service_name: str, endpoint: str | None
) -> UpstreamServiceError | RateLimitedError:
    status = exc.response.status_code
    retry_after = _retry_after_seconds(exc.response.headers.get("Retry-After"))
    if status == _TOO_MANY_REQUESTS:
        return RateLimitedError(
            f"{service_name} limits the rate of requests",
            retry_after=retry_after,
            service=service_name,
            endpoint=endpoint,
            cause=exc,
        )
    return UpstreamServiceError(
        f"{service_name} answered with status {status}",
        service=service_name,
        retryable=status in _RETRYABLE_CLIENT_ERRORS
        or (status >= _SERVER_ERROR and status not in _PERMANENT_SERVER_ERRORS),
        upstream_service=service_name,
        upstream_status=status,
        upstream_error=exc.response.reason_phrase or None,
        endpoint=endpoint,
        retry_after=retry_after,
        cause=exc,
    )


def _retry_after_seconds(value: str | None) -> int | None:
    """Read ``Retry-After``: seconds or a date (RFC 9110, section 10.2.3); ``None`` if neither."""
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return int(text)
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - brings sockets and calendars

    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0, ceil((when - datetime.now(UTC)).total_seconds()))


def _endpoint(exc: httpx.HTTPError) -> str | None:
    try:
        request = exc.request
    except RuntimeError:  # how httpx says that there is none
        return None
    url = request.url
    return f"{request.method} {url.scheme}://{url.netloc.decode('ascii')}{url.path}"
