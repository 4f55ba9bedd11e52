from __future__ import annotations

import asyncio
import inspect
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from shared.errors import (
    CircuitOpenError,
    ConflictError,
    DatabaseError,
    GlamBaseError,
    InfrastructureError,
    NotFoundError,
    RateLimitedError,
    RequestTimeoutError,
    ServiceUnavailableError,
    UpstreamServiceError,
    ValidationError,
    classify_http_error,
    is_retryable_error,
    with_error_mapping,
    wrap_external_error,
)

URL = "https://user:secret@shop.test:8443/orders/7?token=secret"
ENDPOINT = "GET https://shop.test:8443/orders/7"


def answered(status: int, retry_after: str | None = None) -> httpx.HTTPStatusError:
    headers = [(b"Retry-After", retry_after.encode())] if retry_after is not None else []
    response = httpx.Response(status, headers=headers, request=httpx.Request("GET", URL))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        response.raise_for_status()
    return caught.value


def test_wrapping_keeps_the_cause_and_the_details() -> None:
    cause = OSError("disk")
    error = wrap_external_error(DatabaseError, "Down", cause=cause, table="orders")
    assert isinstance(error, DatabaseError)
    assert error.__cause__ is cause
    assert error.table == "orders"


def test_a_rate_limit_with_seconds() -> None:
    error = classify_http_error(answered(429, "120"), service_name="shopify")
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == 120
    assert error.details == {"retry_after": 120, "service": "shopify", "endpoint": ENDPOINT}
    assert is_retryable_error(error)


def test_a_rate_limit_with_a_date() -> None:
    when = datetime.now(UTC) + timedelta(hours=1)
    error = classify_http_error(answered(429, format_datetime(when, usegmt=True)))
    assert isinstance(error, RateLimitedError)
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 3600
    past = classify_http_error(answered(429, "Wed, 21 Oct 2015 07:28:00 GMT"))
    assert past.details["retry_after"] == 0
    assert is_retryable_error(past)


@pytest.mark.parametrize(
    "header", [None, "", "soon", "-1", "1.5", "²", "9" * 5000, "Wed, 99 Oct 2015"]
)
def test_a_rate_limit_whose_wait_is_unknown(header: str | None) -> None:
    error = classify_http_error(answered(429, header))
    assert isinstance(error, RateLimitedError)
    assert error.retry_after is None
    assert not is_retryable_error(error)


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, 599])
def test_a_failing_upstream_may_be_asked_again(status: int) -> None:
    error = classify_http_error(answered(status, "3"), service_name="shopify")
    assert isinstance(error, UpstreamServiceError)
    assert error.upstream_status == status
    assert error.details["retry_after"] == 3
    assert error.retryable


@pytest.mark.parametrize("status", [302, 400, 401, 404, 409, 422, 501, 505])
def test_a_refusing_upstream_is_not_asked_again(status: int) -> None:
    error = classify_http_error(answered(status))
    assert isinstance(error, UpstreamServiceError)
    assert not error.retryable


@pytest.mark.parametrize(
    ("error", "kind", "retryable"),
    [
        (httpx.ReadTimeout("slow"), RequestTimeoutError, True),
        (httpx.PoolTimeout("busy"), RequestTimeoutError, True),
        (httpx.ConnectError("refused"), ServiceUnavailableError, True),
        (httpx.RemoteProtocolError("cut"), ServiceUnavailableError, True),
        (httpx.UnsupportedProtocol("gopher"), UpstreamServiceError, False),
        (httpx.TooManyRedirects("round and round"), UpstreamServiceError, False),
        (httpx.DecodingError("no gzip"), UpstreamServiceError, False),
        (httpx.HTTPError("?"), UpstreamServiceError, False),
    ],
    ids=repr,
)
def test_a_request_without_an_answer(
    error: httpx.HTTPError, kind: type[InfrastructureError], retryable: bool
) -> None:
    ours = classify_http_error(error, service_name="shopify")
    assert type(ours) is kind
    assert ours.__cause__ is error
    assert ours.details["service"] == "shopify"
    assert is_retryable_error(ours) is is_retryable_error(error) is retryable


def test_no_secret_of_the_url_reaches_the_error() -> None:
    for error in (answered(500), httpx.ReadTimeout("slow", request=httpx.Request("GET", URL))):
        ours = classify_http_error(error)
        assert ENDPOINT in ours.details.values()
        assert "secret" not in str(ours.to_dict())


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (InfrastructureError("Down"), True),
        (DatabaseError("Down", retryable=False), False),
        (CircuitOpenError("Open"), False),
        (RateLimitedError(retry_after=0), True),
        (RateLimitedError(), False),
        (ConflictError("Busy"), False),
        (ValidationError("Bad"), False),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_whether_the_same_call_may_succeed(error: Exception, retryable: bool) -> None:
    assert is_retryable_error(error) is retryable


mapped = with_error_mapping(
    {Exception: ConflictError, LookupError: NotFoundError}, default_message="Looking up failed"
)


@mapped
def look_up(error: BaseException | None = None, *, answer: int = 7) -> int:
    """Look it up."""
    if error:
        raise error
    return answer


@mapped
async def look_up_later(error: BaseException | None = None, *, answer: int = 7) -> int:
    await asyncio.sleep(0)
    return look_up.__wrapped__(error, answer=answer)  # type: ignore[attr-defined,no-any-return]


async def call(function: object, error: BaseException | None = None) -> int:
    result = function(error)  # type: ignore[operator]
    return await result if inspect.isawaitable(result) else result  # type: ignore[no-any-return]


both = pytest.mark.parametrize("function", [look_up, look_up_later])


@both
async def test_what_works_is_left_alone(function: object) -> None:
    assert await call(function) == 7
    assert look_up(answer=8) == await look_up_later(answer=8) == 8
    assert inspect.iscoroutinefunction(look_up_later)
    assert look_up.__doc__ == "Look it up."


@both
async def test_the_nearest_class_decides_wherever_it_is_listed(function: object) -> None:
    cause = KeyError("x")
    with pytest.raises(NotFoundError, match="x") as caught:
        await call(function, cause)
    assert caught.value.cause is caught.value.__cause__ is cause
    with pytest.raises(ConflictError, match="Looking up failed"):
        await call(function, ValueError())


@both
async def test_own_errors_pass_first_even_under_a_broad_mapping(function: object) -> None:
    own = ValidationError("Bad", field="x")
    with pytest.raises(ValidationError) as caught:
        await call(function, own)
    assert caught.value is own
    assert own.__cause__ is None


@both
async def test_a_cancellation_is_no_error(function: object) -> None:
    with pytest.raises(asyncio.CancelledError):
        await call(function, asyncio.CancelledError())


def test_what_is_not_mapped_gets_the_default_and_keeps_its_words_to_itself() -> None:
    @with_error_mapping({KeyError: NotFoundError}, default_error=DatabaseError)
    def fail() -> None:
        raise ValueError("password=secret")

    with pytest.raises(DatabaseError, match=r"^Operation failed$") as caught:
        fail()
    assert isinstance(caught.value, GlamBaseError)
    assert isinstance(caught.value.__cause__, ValueError)
