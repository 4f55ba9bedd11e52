"""The client for one other service."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from itertools import count
from types import GenericAlias
from typing import TYPE_CHECKING, Any, Generic, Self, TypedDict, Unpack, cast
from urllib.parse import urlsplit

import httpx
from pydantic_core import to_json
from typing_extensions import TypeVar

from shared.config import ConfigError, Mistake
from shared.context import Context, current
from shared.context.deadline import TIMEOUT_HEADER, format_timeout, remaining_seconds, within
from shared.errors import GlamBaseError, RequestTimeoutError, classify_http_error
from shared.http.answers import error_of_answer, read_answer
from shared.http.metrics import (
    http_client_circuit_open,
    http_client_request_duration_seconds,
    http_client_requests_total,
)
from shared.http.retries import (
    IDEMPOTENT_METHODS,
    SERVICE_FAULTS,
    UNAVAILABLE,
    may_send_again,
)
from shared.http.tokens import sign_token
from shared.resilience import Circuit, CircuitBreaker, backoff_seconds
from shared.tracing import span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.config import HttpClientSettings, ServiceAuthSettings
    from shared.resilience import CircuitStatus, GuardedCall

T = TypeVar("T", default=Any)

Primitive = str | int | float | bool
Params = Mapping[str, Primitive | Sequence[Primitive] | None]
"""The query of a call: a sequence is repeated, ``None`` is left out."""


class Reading(TypedDict, Generic[T], total=False):
    """What a call without a body takes, as `ServiceClient.request` says."""

    answer: type[T] | None
    params: Params | None
    headers: Mapping[str, str] | None


class Writing(Reading[T], total=False):
    """What a call with a body takes."""

    body: object


class Acting(Writing[T], total=False):
    """What a call takes that is not idempotent by its method."""

    idempotency_key: str | None


# Uvicorn closes a connection that was idle for 5 seconds: ours have to be the first to go, or a
# POST goes out on a connection that is being closed.
_KEEPALIVE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked, the same in every attempt."""

    method: str
    path: str
    query: httpx.QueryParams | None
    headers: httpx.Headers
    content: bytes | None
    hurried: bool
    """Whether the one who waits for us gives up before the client itself would."""

    @property
    def idempotent(self) -> bool:
        return self.method in IDEMPOTENT_METHODS or "Idempotency-Key" in self.headers


class ServiceClient:
    """Calls one other service, for as long as the process lives.

    An async context manager; one client for a called service, shared by all tasks of an event
    loop, since it holds the connections and the circuit. Closing twice is harmless.

    >>> async with ServiceClient("credit", caller="till", settings=settings) as credit:
    ...     await credit.get("/accounts/7", answer=Account)
    ...     await credit.get("/accounts/8", answer=Account)
    Account(number='7', balance=12)
    NotFoundError: No account 8

    Each call passes on request id, correlation id and trace, the time that is left
    (`X-Request-Timeout-Ms`) and, in a token signed for this one service, the caller's name and the
    tenant. It ends within `total_timeout_seconds` and within the deadline of the request it is
    made for (`shared.context.deadline`), retries included.

    A request is sent again only if it cannot be carried out twice: when no connection came about;
    and, if its method is idempotent or it has an idempotency key, when the connection broke, no
    answer came, or the answer was 429, 502, 503 or 504. ``Retry-After`` is kept; a wait that is
    longer than the time left is not begun.

    Connections that fail, answers that do not come, 502, 503 and 504 open the circuit; other
    errors are answers.

    Args:
        service: the called service.
        caller: this service.
        settings: where the services are, timeouts, retries and the circuit.
        auth: what to sign tokens with; without a secret none are sent.
        base_url: the called service's address, in place of ``settings.services``.

    Raises:
        ConfigError: nothing says where the service is.

    Each call raises:
        DomainError: the called service refused, with a code that is known here; of that class.
        RateLimitedError: too many requests; ``retry_after`` says how long to wait.
        RequestTimeoutError: no answer in time.
        ServiceUnavailableError: the service cannot be reached.
        CircuitOpenError: it failed too often, and was not asked.
        UpstreamServiceError: it failed, or its answer was not the one expected.
        ValueError: a path that does not begin with a slash.
    """

    def __init__(
        self,
        service: str,
        *,
        caller: str,
        settings: HttpClientSettings,
        auth: ServiceAuthSettings | None = None,
        base_url: str | None = None,
    ) -> None:
        address = base_url or settings.services.get(service)
        if address is None:
            raise ConfigError(
                caller, [Mistake("", f"http_client.services has no address for {service}")]
            )
        self.service = service
        self.caller = caller
        self._settings = settings
        self._auth = auth
        circuit_open = http_client_circuit_open.labels(caller, service)
        circuit_open.set(0)
        self.circuit = CircuitBreaker(
            service,
            failures=settings.circuit_failures,
            pause_seconds=lambda _: settings.circuit_open_seconds,
            on_change=lambda state: circuit_open.set(state is not Circuit.CLOSED),
        )
        self._http = httpx.AsyncClient(
            base_url=address,
            headers={"Accept": "application/json", "User-Agent": caller},
            timeout=httpx.Timeout(
                settings.read_timeout_seconds, connect=settings.connect_timeout_seconds
            ),
            limits=httpx.Limits(
                max_connections=settings.max_connections, keepalive_expiry=_KEEPALIVE_SECONDS
            ),
            verify=ssl.create_default_context(cafile=settings.ca_file),
            # What one tenant's answer sets must not go out with another's call.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            trust_env=False,  # a proxy of the environment is for the way out, not to a neighbour
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls that are under way fail, later ones raise `RuntimeError`."""
        await self._http.aclose()

    async def check(self) -> CircuitStatus:
        """Return the circuit's state, for a `Probe`; it sends nothing and never fails.

        A service that stops being ready because another one is down only spreads the outage.
        """
        return self.circuit.status

    # -- calls -------------------------------------------------------------------------------

    async def get(self, path: str, **options: Unpack[Reading[T]]) -> T:
        """Read; arguments and errors as `request`."""
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Unpack[Acting[T]]) -> T:
        """Create or act; arguments and errors as `request`."""
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Unpack[Writing[T]]) -> T:
        """Put a whole thing in its place; arguments and errors as `request`."""
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Unpack[Acting[T]]) -> T:
        """Change a part; arguments and errors as `request`."""
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Unpack[Reading[T]]) -> T:
        """Remove; arguments and errors as `request`."""
        return await self.request("DELETE", path, **options)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        answer: type[T] | None = None,
        idempotency_key: str | None = None,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """Call the service, and return ``data`` of its answer.

        Args:
            method: of HTTP.
            path: from a slash on, below the service's address; ids in it are the caller's to quote.
            body: sent as JSON: models, data classes, mappings; ``None`` sends no body.
            answer: the type ``data`` is validated as; without it ``data`` is returned as JSON has
                it, ``None`` for an answer without a body.
            idempotency_key: sent as ``Idempotency-Key``, the same in every attempt; the called
                service promises to do the work once for it.
            params: the query.
            headers: more headers; those of the client win.
        """
        given = httpx.Headers(headers)
        if idempotency_key is not None:
            given["Idempotency-Key"] = idempotency_key
        if body is not None:
            given["Content-Type"] = "application/json"
        content = None if body is None else to_json(body)
        response = await self._exchange(method.upper(), path, _query(params), given, content)
        if answer is None and not response.content:
            return cast("T", None)
        kind = Any if answer is None else answer
        return cast("T", read_answer(response, kind, service=self.service).data)

    async def iterate(
        self,
        path: str,
        *,
        item: type[T],
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[T]:
        """Go through a list, page by page, each page a call of its own.

        Of `links.next` the query is followed, on the same path: a link never leads elsewhere.
        Arguments and errors as `request`.
        """
        given, query = httpx.Headers(headers), _query(params)
        while True:
            response = await self._exchange("GET", path, query, given, None)
            page = read_answer(response, GenericAlias(list, (item,)), service=self.service)
            for one in page.data:
                yield one
            if page.links is None or page.links.next is None:
                return
            query = httpx.QueryParams(urlsplit(page.links.next).query)

    # -- one call ----------------------------------------------------------------------------

    async def _exchange(
        self,
        method: str,
        path: str,
        query: httpx.QueryParams | None,
        headers: httpx.Headers,
        content: bytes | None,
    ) -> httpx.Response:
        """Call until there is a good answer, or no reason to hope for one."""
        if not path.startswith("/"):
            raise ValueError(f"{path!r} is not a path: it begins with a slash")
        total, waited_for = self._settings.total_timeout_seconds, remaining_seconds()
        hurried = waited_for is not None and waited_for < total
        request = _Request(method, path, query, headers, content, hurried)
        with within(total):
            for attempt in count(1):
                try:
                    return await self._attempt(request, attempt)
                except GlamBaseError as error:
                    wait = self._wait_after(error, request, attempt)
                    if wait is None:
                        raise
                await asyncio.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _wait_after(self, error: GlamBaseError, request: _Request, attempt: int) -> float | None:
        """Say how long to wait before the next attempt; ``None`` if there is to be none."""
        settings = self._settings
        if attempt >= settings.attempts or self.circuit.state is Circuit.OPEN:
            return None
        if not may_send_again(error.cause, idempotent=request.idempotent):
            return None
        wait = backoff_seconds(
            attempt,
            first=settings.retry_first_delay_seconds,
            longest=settings.retry_max_delay_seconds,
            spread=(0.5, 1.0),
        )
        asked = error.details.get("retry_after")
        if isinstance(asked, int | float):
            wait = max(wait, asked)
        return wait if wait < (remaining_seconds() or 0) else None

    async def _attempt(self, request: _Request, attempt: int) -> httpx.Response:
        with span(
            f"{request.method} {self.service}",
            kind="client",
            upstream=self.service,
            path=urlsplit(request.path).path,
            attempt=attempt,
        ) as step:
            left = remaining_seconds() or 0.0
            if not left:
                raise self._timeout(f"No time is left to ask {self.service}", request, left)
            with self.circuit.call() as call:
                response = await self._send(request, left, call)
                step.set(status=response.status_code)
                if response.status_code in UNAVAILABLE:
                    call.failed()
                else:
                    call.succeeded()
            try:
                return response.raise_for_status()
            except httpx.HTTPStatusError as fault:
                raise error_of_answer(fault, service=self.service) from fault

    async def _send(self, request: _Request, left: float, call: GuardedCall) -> httpx.Response:
        """Send once, and return the answer, whatever it says."""
        labels = (self.caller, self.service, request.method)
        status = "none"
        started = time.perf_counter()
        try:
            async with asyncio.timeout(left):
                response = await self._http.send(self._build(request, left))
            status = str(response.status_code)
        except TimeoutError as fault:
            if not request.hurried:
                call.failed()
            message = f"{self.service} did not answer in time"
            raise self._timeout(message, request, left) from fault
        except httpx.HTTPError as fault:
            if isinstance(fault, SERVICE_FAULTS):
                call.failed()
            raise classify_http_error(fault, service_name=self.service) from fault
        finally:
            seconds = time.perf_counter() - started
            http_client_requests_total.labels(*labels, status).inc()
            http_client_request_duration_seconds.labels(*labels).observe(seconds)
        return response

    def _build(self, request: _Request, left: float) -> httpx.Request:
        """Make one attempt's request, in the context of its span."""
        context = current() or Context.start()
        headers = request.headers.copy()
        headers["X-Request-ID"] = context.request_id
        headers["X-Correlation-ID"] = context.correlation_id
        headers["traceparent"] = context.trace.traceparent
        if context.trace.tracestate:
            headers["tracestate"] = context.trace.tracestate
        # Between two bytes nobody waits longer than the read timeout.
        headers[TIMEOUT_HEADER] = format_timeout(min(left, self._settings.read_timeout_seconds))
        if self._auth is not None:
            token = sign_token(
                self._auth,
                caller=self.caller,
                audience=self.service,
                tenant_id=context.tenant_id,
            )
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
        return self._http.build_request(
            request.method,
            request.path,
            content=request.content,
            params=request.query,
            headers=headers,
        )

    def _timeout(self, message: str, request: _Request, left: float) -> RequestTimeoutError:
        return RequestTimeoutError(
            message,
            service=self.service,
            operation=f"{request.method} {urlsplit(request.path).path}",
            timeout_seconds=round(left, 3),
        )


def _query(params: Params | None) -> httpx.QueryParams | None:
    given = {name: value for name, value in (params or {}).items() if value is not None}
    return httpx.QueryParams(given) if given else None
