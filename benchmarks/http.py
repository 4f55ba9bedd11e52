"""Placing an order: a body of three lines is validated, a row inserted and committed, answered.

As an ASGI call, one request after another, and by uvicorn over loopback. Each application has the
same route: a body, a dependency that reads a header, one that gives it a transaction of its own,
which commits before the answer. Called in this process, the applications pay neither for sockets
nor for the parsing of HTTP, which all would pay alike and which brings the ratios nearer to 1.
Served by uvicorn, each has a process of its own with one worker; this process sends the requests,
sixteen at a time over connections that stay open, and the CPU time is the server's alone. What
makes the comparison unfair:

- PostgreSQL shares the machine, and does not flush to the disk. Waiting for it is in the times and
  not in the CPU time.
- Bare FastAPI, and Starlette more so, do less: they make no ids, trace and measure nothing, count
  no body, set no headers, log nothing, and their answer has no `meta`. Their session is
  SQLAlchemy's own; ours is a unit of work, whose pool asks a connection that rested if it lives.
- Starlette validates nothing, and writes JSON of plain Python data.
- asgi-correlation-id and the instrumentator write no log line, and no envelope. With OpenTelemetry
  spans are made and queued, but sent nowhere.
- The three `BaseHTTPMiddleware`s are ids, timing and a log line as a tutorial would have them.
"""

import asyncio
import json
import logging
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import psutil
import uvicorn
from asgi_correlation_id import CorrelationIdMiddleware
from fastapi import Depends, FastAPI, Header
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message

from benchmarks.harness import Bench, Run
from shared.api import (
    ApiResponse,
    install_edge,
    install_exception_handlers,
    success_response,
)
from shared.config import ApiSettings, DatabaseSettings, LoggingSettings
from shared.database import Database
from shared.delivery import UnitOfWork, UnitOfWorkFactory
from shared.dev import PostgresServer
from shared.logging import configure_logging

_OPERATIONS = 1_000
_SERVED = 2_000
_CONNECTIONS = 16
_OK = 200
_ROOT = Path(__file__).parents[1]
_logger = logging.getLogger(__name__)


class _Line(BaseModel):
    title: str
    quantity: int
    price: Decimal


class _Order(BaseModel):
    order_id: str
    currency: str
    lines: list[_Line]


_ORDER = _Order(
    order_id="5123456789",
    currency="EUR",
    lines=[_Line(title=f"Lamp {n}", quantity=n, price=Decimal(9)) for n in (1, 2, 3)],
)
_BODY = _ORDER.model_dump_json().encode()
_HEADERS = {
    "host": "127.0.0.1:8000",
    "accept": "application/json",
    "content-length": str(len(_BODY)),
    "content-type": "application/json",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "user-agent": "benchmarks",
    "x-shop": "lamps",
}
_REQUEST = (
    "POST /orders HTTP/1.1\r\n"
    + "".join(f"{name}: {value}\r\n" for name, value in _HEADERS.items())
    + "\r\n"
).encode() + _BODY

_CREATE = """
CREATE TABLE orders (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), shop text NOT NULL, number text NOT NULL
)
"""
_INSERT = text("INSERT INTO orders (shop, number) VALUES (:shop, :number)")

Where = dict[str, str | int]
"""The database: host, port, user and name."""


async def http(bench: Bench) -> None:
    """Compare answering one request after another, then many over loopback."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(PostgresServer())
        found = await server.create_database("benchmarks")
        where: Where = {
            "host": found.host,
            "port": found.port,
            "user": found.user,
            "name": found.name,
        }
        engine = _engine(where)
        async with engine.begin() as connection:
            await connection.execute(text(_CREATE))
        await engine.dispose()
        applications = {name: make(where) for name, make in _APPLICATIONS.items()}
        async with AsyncExitStack() as living:
            for app in applications.values():
                await living.enter_async_context(app.router.lifespan_context(app))
            await bench.compare(
                "http: place an order",
                _OPERATIONS,
                {name: _requests(app) for name, app in applications.items()},
            )
        servers = {
            name: await stack.enter_async_context(_server(name, where)) for name in _APPLICATIONS
        }
        await bench.compare(
            "http: place an order, by uvicorn",
            _SERVED,
            {name: server.requests for name, server in servers.items()},
            cpu={name: server.cpu_seconds for name, server in servers.items()},
        )


def _shop(x_shop: Annotated[str, Header()]) -> str:
    return x_shop


_Shop = Annotated[str, Depends(_shop)]


def _ours(where: Where) -> FastAPI:
    settings = DatabaseSettings.model_validate(
        {**where, "pool_size": _CONNECTIONS, "max_overflow": 0}
    )
    database = Database(settings, application_name="benchmarks")
    units = UnitOfWorkFactory(database, service="benchmarks")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with database:
            yield

    async def unit_of_work() -> AsyncIterator[UnitOfWork]:  # as `shared.service.UnitOfWorkDep`
        async with units() as uow:
            yield uow

    app = FastAPI(lifespan=lifespan)

    @app.post("/orders")
    async def place(
        order: _Order,
        shop: _Shop,
        uow: Annotated[UnitOfWork, Depends(unit_of_work, scope="function")],
    ) -> ApiResponse[_Order]:
        await uow.session.execute(_INSERT, {"shop": shop, "number": order.order_id})
        return success_response(order)

    install_exception_handlers(app)
    install_edge(app, ApiSettings(), service="benchmarks", registry=CollectorRegistry())
    return app


def _engine(where: Where) -> AsyncEngine:
    address = "postgresql+asyncpg://{user}@{host}:{port}/{name}".format(**where)
    return create_async_engine(address, pool_size=_CONNECTIONS, max_overflow=0)


def _bare(where: Where) -> FastAPI:
    engine = _engine(where)
    sessions = async_sessionmaker(engine)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    async def transaction() -> AsyncIterator[AsyncSession]:
        async with sessions.begin() as session:
            yield session

    app = FastAPI(lifespan=lifespan)

    @app.post("/orders")
    async def place(
        order: _Order,
        shop: _Shop,
        session: Annotated[AsyncSession, Depends(transaction, scope="function")],
    ) -> _Order:
        await session.execute(_INSERT, {"shop": shop, "number": order.order_id})
        return order

    return app


def _starlette(where: Where) -> Starlette:
    engine = _engine(where)
    sessions = async_sessionmaker(engine)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    async def place(request: Request) -> Response:
        order = await request.json()
        values = {"shop": request.headers["x-shop"], "number": order["order_id"]}
        async with sessions.begin() as session:
            await session.execute(_INSERT, values)
        return JSONResponse(order)

    return Starlette(routes=[Route("/orders", place, methods=["POST"])], lifespan=lifespan)


def _with_ids_and_metrics(where: Where) -> FastAPI:
    app = _bare(where)
    Instrumentator(registry=CollectorRegistry()).instrument(app)
    app.add_middleware(CorrelationIdMiddleware)
    return app


def _with_opentelemetry(where: Where) -> FastAPI:
    app = _with_ids_and_metrics(where)
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(_Nowhere()))
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    return app


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS


def _with_three_middlewares(where: Where) -> FastAPI:
    app = _bare(where)
    app.add_middleware(BaseHTTPMiddleware, dispatch=_with_id)
    app.add_middleware(BaseHTTPMiddleware, dispatch=_timed)
    app.add_middleware(BaseHTTPMiddleware, dispatch=_logged)
    return app


_Next = Callable[[Request], Awaitable[Response]]


async def _with_id(request: Request, call_next: _Next) -> Response:
    request_id = request.headers.get("X-Request-ID") or str(uuid.uuid4())
    request.state.request_id = request_id
    response = await call_next(request)
    response.headers["X-Request-ID"] = request_id
    return response


async def _timed(request: Request, call_next: _Next) -> Response:
    began = time.perf_counter()
    response = await call_next(request)
    response.headers["X-Process-Time"] = f"{time.perf_counter() - began:.6f}"
    return response


async def _logged(request: Request, call_next: _Next) -> Response:
    response = await call_next(request)
    _logger.info(
        "request",
        extra={"method": request.method, "path": request.url.path, "status": response.status_code},
    )
    return response


_APPLICATIONS: dict[str, Callable[[Where], Starlette]] = {
    "shared: edge, unit of work": _ours,
    "bare FastAPI, SQLAlchemy": _bare,
    "Starlette, SQLAlchemy": _starlette,
    "correlation-id, instrumentator": _with_ids_and_metrics,
    "the same, OpenTelemetry": _with_opentelemetry,
    "three BaseHTTPMiddlewares": _with_three_middlewares,
}


class _Server:
    """Uvicorn with one worker, in a process of its own."""

    def __init__(self, pid: int, port: int) -> None:
        self._process = psutil.Process(pid)
        self._port = port

    def cpu_seconds(self) -> float:
        """Return the CPU time the server has used so far."""
        times = self._process.cpu_times()
        return times.user + times.system

    async def requests(self, operations: int) -> None:
        """Send so many requests, and read their answers."""
        each = -(-operations // _CONNECTIONS)
        await asyncio.gather(*(self._connection(each) for _ in range(_CONNECTIONS)))

    async def _connection(self, requests: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for _ in range(requests):
            writer.write(_REQUEST)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"answered with {head!r}")
            _, _, rest = head.lower().partition(b"content-length: ")
            await reader.readexactly(int(rest.split(b"\r\n", 1)[0]))
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def _server(name: str, where: Where) -> AsyncIterator[_Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = [name, str(listener.fileno()), json.dumps(where)]
        command = [sys.executable, "-m", "benchmarks.http", *told]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=_ROOT, pass_fds=[listener.fileno()], stdout=subprocess.DEVNULL
        )
        try:
            yield _Server(process.pid, listener.getsockname()[1])
        finally:
            process.terminate()
            await process.wait()


def _serve(name: str, descriptor: int, where: Where) -> None:
    settings = LoggingSettings(format="json", sample_keep=0)
    configure_logging(settings, service="benchmarks", environment="prod")
    config = uvicorn.Config(
        _APPLICATIONS[name](where), access_log=False, log_config=None, proxy_headers=False
    )
    # Not uvicorn's own `fd`, which takes the socket for a Unix one: asyncio then leaves Nagle's
    # algorithm on, and every answer waits 40 ms for the client's delayed acknowledgement.
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


def _requests(app: ASGIApp) -> Run:
    async def receive() -> Message:
        return {"type": "http.request", "body": _BODY, "more_body": False}

    async def send(message: Message) -> None:
        if message.get("status", _OK) != _OK:
            raise RuntimeError(f"answered with {message['status']}")

    async def run(operations: int) -> None:
        for _ in range(operations):
            await app(_scope(), receive, send)

    return run


def _scope() -> MutableMapping[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "POST",
        "root_path": "",
        "path": "/orders",
        "raw_path": b"/orders",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in _HEADERS.items()],
    }


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
