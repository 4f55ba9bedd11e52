"""The edge: all that is done for every request, in one pass of pure ASGI.

In the order of a request: the caller's ids and trace are read or made once; the context is bound
for everything that happens until the application returns, streaming and background tasks too; the
request is measured; its body is counted; the answer gets its headers; an error without an answer
gets one; and when the last byte is sent, one record is written, which is the server's span of the
trace and the access log.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from shared.api.error_answers import answer_error, answer_unexpected, error_answer, log_unexpected
from shared.api.proxies import TrustedProxies
from shared.context import Context, TraceContext, bind, new_request_id, safe_id
from shared.context.deadline import TIMEOUT_HEADER, parse_timeout, remaining_seconds, within
from shared.errors import RequestTimeoutError
from shared.metrics import HttpMetrics, render
from shared.metrics.http import default_http_metrics, route_template
from shared.metrics.middleware import metrics_endpoint
from shared.tracing import instrumented_trace
from shared.tracing.span import write_span

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi import FastAPI
    from prometheus_client import CollectorRegistry
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from shared.config import ApiSettings
    from shared.context.deadline import Deadline


_span_logger = logging.getLogger("shared.tracing")

_PASSED = "shared.api.edge"
_TIMEOUT = TIMEOUT_HEADER.lower().encode()
_READ = frozenset(
    {
        b"content-length",
        b"traceparent",
        b"tracestate",
        b"x-correlation-id",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-request-id",
        _TIMEOUT,
    }
)
_OWN = frozenset(
    {b"x-request-id", b"x-correlation-id", b"x-service-name", b"x-trace-id", b"traceparent"}
)
"""The headers of an answer that are the edge's alone."""

_QUIET_ROUTES = ("/health", "/health/live", "/health/ready", "/health/startup")
_MAX_LOGGED_PATH = 1024

_SERVER_ERROR = 500
_CLIENT_CLOSED_REQUEST = 499
"""The status nginx made customary for a request whose client did not wait for the answer."""


class BodyTooLargeError(HTTPException):
    """The body grew beyond the limit while it was read; becomes a 413 where it is not caught."""

    def __init__(self, limit: int) -> None:
        super().__init__(413, f"The request body is limited to {limit} bytes")


class Edge:
    """Pure ASGI middleware around an application; see the module for what it does.

    An edge inside another one passes requests through: the outer one has decided.

    An unexpected error is answered with an error id, written to the log with that id and its
    stack, and raised on, so that test clients and outer middleware see it. `install_edge` keeps
    uvicorn from writing the same stack again. After the answer began there is no second one.

    A WebSocket gets ids, context, headers and a span too; it is not measured, since an open
    connection is not a request in progress, nor its length a latency.

    Args:
        app: the application.
        service: the name sent as ``X-Service-Name`` and the metrics' ``service``.
        metrics: what to count in; ``None`` counts nothing.
        body_limit_bytes: a larger body is answered with 413, whether ``Content-Length`` announces
            it, lies, or is absent; ``None`` sets no limit.
        request_timeout_seconds: how long the application may take to begin its answer before it is
            cancelled and 504 is sent; less if the caller says in ``X-Request-Timeout-Ms`` that it
            will not wait that long. What the application calls meanwhile has the same deadline
            (`shared.context.deadline`). A stream that has begun may go on. A ``def`` endpoint runs
            in a thread, which cannot be interrupted: its 504 comes when the thread ends.
        trusted_proxies: addresses and networks whose ``X-Forwarded-For`` and ``X-Forwarded-Proto``
            are believed; ``scope["client"]`` and ``scope["scheme"]`` become what they say.
        metrics_path: the path of the scrape, which like the health routes is written to the access
            log at debug level only.

    Raises:
        ValueError: a trusted proxy that is neither an address nor a network.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: str,
        metrics: HttpMetrics | None = None,
        body_limit_bytes: int | None = None,
        request_timeout_seconds: float | None = None,
        trusted_proxies: Iterable[str] = (),
        metrics_path: str = "/metrics",
    ) -> None:
        self.app = app
        self.service = service
        self.encoded_service = service.encode("latin-1")
        self.metrics = metrics
        self.body_limit_bytes = body_limit_bytes
        self.request_timeout_seconds = request_timeout_seconds
        self.trusted_proxies = TrustedProxies(trusted_proxies) or None
        self.quiet_routes = (metrics_path, *_QUIET_ROUTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if _PASSED in scope or scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        scope[_PASSED] = True
        kind = _HttpExchange if scope["type"] == "http" else _WebSocketExchange
        await kind(self, scope, receive, send).run()


class _Exchange:
    """One request on its way through the edge."""

    method: str
    status: int

    def __init__(self, edge: Edge, scope: Scope, receive: Receive, send: Send) -> None:
        self.edge = edge
        self.scope = scope
        self._receive = receive
        self._send = send
        self.error: str | None = None
        self.answering = False
        self.completed = False
        self.disconnected = False
        self._finished = False
        self.started = time.time()
        self._began = time.perf_counter()

        self.headers = headers = _read_headers(scope)
        parent = instrumented_trace()
        if parent is None and b"traceparent" in headers:
            parent = TraceContext.parse(headers[b"traceparent"], headers.get(b"tracestate"))
        self.parent_span_id = parent.span_id if parent else None
        trace = TraceContext.start() if parent is None else parent.child()
        self.context = Context(
            safe_id(headers.get(b"x-request-id")) or new_request_id(),
            safe_id(headers.get(b"x-correlation-id")) or trace.trace_id,
            trace,
            service=edge.service,
        )
        state = scope.setdefault("state", {})
        state["request_id"] = self.context.request_id
        state["correlation_id"] = self.context.correlation_id
        state["trace_id"] = trace.trace_id
        if edge.trusted_proxies is not None:
            self._see_through_proxies(edge.trusted_proxies)

    async def run(self) -> None:
        """Serve the request and record it."""
        with bind(self.context):
            try:
                await self.serve()
            except (ClientDisconnect, WebSocketDisconnect):
                self.disconnected = True  # nobody is left to answer, and nothing went wrong
            except Exception as error:
                self.error = type(error).__name__
                await self.fail(error)
                raise
            except BaseException as error:  # cancellation, mostly: the server is stopping
                self.error = type(error).__name__
                raise
            finally:
                self.finish()

    async def serve(self) -> None:
        """Call the application."""
        raise NotImplementedError

    async def fail(self, error: Exception) -> None:
        """Answer for an application that raised."""
        raise NotImplementedError

    def finish(self) -> None:
        """Record the request; a second call does nothing."""
        if self._finished:
            return
        self._finished = True
        duration = time.perf_counter() - self._began
        route = route_template(self.scope)
        self.measure(route, duration)
        failed = self.status >= _SERVER_ERROR or self.error is not None
        if (
            route.endswith(self.edge.quiet_routes)
            and not failed
            and not _span_logger.isEnabledFor(logging.DEBUG)
        ):
            return
        client = self.scope.get("client")
        write_span(
            f"{self.method} {route}",
            "server",
            self.context.trace,
            self.parent_span_id,
            self.started,
            duration,
            (self.error or f"HTTP {self.status}") if failed else None,
            {
                "method": self.method,
                "route": route,
                "path": self.scope["path"][:_MAX_LOGGED_PATH],
                "status": self.status,
                "client": client[0] if client else None,
            },
        )

    def measure(self, route: str, seconds: float) -> None:
        """Count the request."""

    def with_headers(self, message: Message) -> Message:
        """Put the edge's headers into the message that begins an answer.

        After them come the pairs that parts further in left in the state as ``answer_headers``.
        """
        context, trace = self.context, self.context.trace
        headers = [pair for pair in message.get("headers", ()) if pair[0].lower() not in _OWN]
        headers += (
            (b"x-request-id", context.request_id.encode()),
            (b"x-correlation-id", context.correlation_id.encode()),
            (b"x-service-name", self.edge.encoded_service),
            (b"x-trace-id", trace.trace_id.encode()),
            (b"traceparent", trace.traceparent.encode()),
        )
        headers += self.scope["state"].get("answer_headers", ())
        return {**message, "headers": headers}

    def _see_through_proxies(self, proxies: TrustedProxies) -> None:
        peer = self.scope.get("client")
        if not peer or peer[0] not in proxies:
            return
        client = proxies.client(peer[0], self.headers.get(b"x-forwarded-for", ""))
        if client != peer[0]:
            self.scope["client"] = (client, 0)
        protocol = self.headers.get(b"x-forwarded-proto", "").strip().lower()
        if protocol in {"http", "https"}:
            secure = {"http": "ws", "https": "wss"} if self.scope["type"] == "websocket" else {}
            self.scope["scheme"] = secure.get(protocol, protocol)


class _HttpExchange(_Exchange):
    status = _SERVER_ERROR  # what a server answers for an application that does not
    _metrics: HttpMetrics | None = None
    _received = 0
    _timeout: asyncio.Timeout | None = None
    _deadline: Deadline | None = None

    async def serve(self) -> None:
        edge, scope = self.edge, self.scope
        self.method = scope["method"]
        if edge.metrics is not None and edge.metrics.begin(scope, edge.service):
            self._metrics = edge.metrics
        if self._announces_too_much():
            await self._refuse_body()
            return
        seconds = self._least_timeout_seconds()
        try:
            if seconds is None and remaining_seconds() is None:
                await edge.app(scope, self.receive, self.send)
                return
            with within(seconds) as self._deadline:
                async with asyncio.timeout(seconds) as self._timeout:
                    await edge.app(scope, self.receive, self.send)
        except BodyTooLargeError:
            if self.answering:
                raise
            await self._refuse_body()
        except TimeoutError:
            if self.answering or self._timeout is None or not self._timeout.expired():
                raise
            error = RequestTimeoutError("The request took too long", timeout_seconds=seconds)
            await self._answer(answer_error(self.scope, error))
        except OSError as error:
            if not self.disconnected:
                raise
            raise ClientDisconnect from error

    def _least_timeout_seconds(self) -> float | None:
        """How long an answer may take to begin: as we say, or less as the caller says."""
        seconds = self.edge.request_timeout_seconds
        callers = parse_timeout(self.headers[_TIMEOUT]) if _TIMEOUT in self.headers else None
        if callers is None or seconds is None:
            return callers if seconds is None else seconds
        return min(seconds, callers)

    async def fail(self, error: Exception) -> None:
        log_unexpected(self.scope, error)
        _mark_logged(error)
        if not (self.answering or self.disconnected):
            await self._answer(answer_unexpected(self.scope, error))

    def measure(self, route: str, seconds: float) -> None:
        if self.disconnected and not self.answering:
            self.status = _CLIENT_CLOSED_REQUEST
        if self.disconnected and not self.completed:
            self.error = self.error or "client disconnected"
        if self._metrics is not None:
            exemplar = {"trace_id": self.context.trace.trace_id}
            self._metrics.finish(
                self.edge.service, self.method, route, self.status, seconds, exemplar
            )

    async def receive(self) -> Message:
        """Hand the application a message, as long as the body keeps within its limit."""
        limit = self.edge.body_limit_bytes
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if limit is not None and self._received > limit:
                raise BodyTooLargeError(limit)
        elif message["type"] == "http.disconnect" and not self.completed:
            self.disconnected = True
        return message

    async def send(self, message: Message) -> None:
        """Send what the application answers; the last byte ends the measurement."""
        kind = message["type"]
        if kind == "http.response.start" and not self.answering:
            if not self.disconnected:
                self.status = message["status"]
                self.answering = True
            if self._timeout is not None:
                with suppress(RuntimeError):  # it is past, or no longer counts
                    self._timeout.reschedule(None)
            if self._deadline is not None:
                self._deadline.lift()
            message = self.with_headers(message)
        last = kind == "http.response.pathsend" or (
            kind == "http.response.body" and not message.get("more_body", False)
        )
        try:
            await self._send(message)
        except OSError:
            self.disconnected = True
            raise
        if last:
            self.completed = True
            self.finish()

    async def _answer(self, response: Response) -> None:
        await response(self.scope, self.receive, self.send)

    def _announces_too_much(self) -> bool:
        limit, length = self.edge.body_limit_bytes, self.headers.get(b"content-length", "")
        return limit is not None and length.isdecimal() and int(length[:20]) > limit

    async def _refuse_body(self) -> None:
        error = BodyTooLargeError(self.edge.body_limit_bytes or 0)
        await self._answer(
            error_answer(
                self.scope,
                status=error.status_code,
                code=f"HTTP_{error.status_code}",
                message=error.detail,
            )
        )


class _WebSocketExchange(_Exchange):
    method = "WEBSOCKET"
    status = 403  # what a server answers for an application that closes before it accepts

    async def serve(self) -> None:
        await self.edge.app(self.scope, self.receive, self.send)

    async def fail(self, error: Exception) -> None:
        error_id = log_unexpected(self.scope, error)
        _mark_logged(error)
        if self.disconnected or self.completed:
            return
        if self.answering:
            # RFC 6455, section 7.4.1: 1011 is an unexpected condition on the server.
            await self.send({"type": "websocket.close", "code": 1011, "reason": error_id})
        elif "websocket.http.response" in self.scope.get("extensions", {}):
            answer = answer_unexpected(self.scope, error)
            await answer(self.scope, self.receive, self.send)
        else:
            self.status = _SERVER_ERROR  # what the server answers now

    async def receive(self) -> Message:
        """Hand the application a message."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.disconnected = True
        return message

    async def send(self, message: Message) -> None:
        """Send what the application says."""
        if message["type"] == "websocket.accept":
            self.status = 101
            self.answering = True
            message = self.with_headers(message)
        elif message["type"] == "websocket.http.response.start":
            self.status = message["status"]
            self.completed = True
            message = self.with_headers(message)
        elif message["type"] == "websocket.close":
            self.completed = True
        await self._send(message)


def install_edge(
    app: FastAPI,
    settings: ApiSettings,
    *,
    service: str,
    metrics: bool = True,
    registry: CollectorRegistry | None = None,
) -> None:
    """Put the edge around ``app``, and the metrics at ``settings.metrics_path``.

    Install it last, so that it is the outermost middleware. A second call replaces the first.
    Run uvicorn with ``proxy_headers=False``: the edge decides which proxies are believed.

    Args:
        app: the application, not started yet.
        settings: limits, proxies and paths.
        service: the service's name.
        metrics: whether to measure, and to serve the metrics.
        registry: counts into a registry of its own, so that two applications in one process do
            not mix; the process's default registry unless given.

    Raises:
        RuntimeError: the application has served a request already.
        ValueError: a trusted proxy that is neither an address nor a network; a registry that
            another application counts into.
    """
    edge: object = Edge
    app.user_middleware[:] = [entry for entry in app.user_middleware if entry.cls is not edge]
    http_metrics = HttpMetrics(registry) if registry is not None else default_http_metrics
    TrustedProxies(settings.trusted_proxies)  # a mistake is raised now, not at the first request
    app.add_middleware(
        Edge,
        service=service,
        metrics=http_metrics if metrics else None,
        body_limit_bytes=settings.body_limit_bytes,
        request_timeout_seconds=settings.request_timeout_seconds,
        trusted_proxies=settings.trusted_proxies,
        metrics_path=settings.metrics_path,
    )
    logging.getLogger("uvicorn.error").addFilter(_not_logged_yet)
    if metrics:
        _serve_metrics(app, settings.metrics_path, registry)


def _serve_metrics(app: FastAPI, path: str, registry: CollectorRegistry | None) -> None:
    if any(getattr(route, "path", None) == path for route in app.routes):
        return
    endpoint = metrics_endpoint
    if registry is not None:

        async def endpoint(request: Request) -> Response:
            accept = request.headers.get("accept", "")
            body, content_type = render(registry=registry, accept=accept)
            return Response(body, headers={"Content-Type": content_type})

    app.add_route(path, endpoint, methods=["GET"], include_in_schema=False)


def _read_headers(scope: Scope) -> dict[bytes, str]:
    """Read what the edge knows of; a header that came twice is joined with a comma.

    So two lists are one, and two ids, timeouts or trace parents are none: to take one of them would
    be a choice (W3C Trace Context, section 3.2, wants a new trace then).
    """
    headers: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        lower, text = name.lower(), value.decode("latin-1")
        if lower in _READ:
            headers[lower] = f"{headers[lower]},{text}" if lower in headers else text
    return headers


def _mark_logged(error: BaseException) -> None:
    error.__dict__["_logged_by_edge"] = True


def _not_logged_yet(record: logging.LogRecord) -> bool:
    """Keep uvicorn from writing a stack that the edge has written with all its ids."""
    error: Any = record.exc_info[1] if record.exc_info else None
    return not getattr(error, "_logged_by_edge", False)
