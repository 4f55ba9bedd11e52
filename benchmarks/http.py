"""Answering a GET with an order of three lines, from the ASGI call to the last byte.

The applications are called as a server calls them, in this process: without sockets and the parsing
of HTTP, which every contender would pay alike and which would bring the ratios nearer to 1. What
makes the comparison unfair:

- Bare FastAPI does less. It makes no ids, traces and measures nothing, counts no body, sets no
  headers, logs nothing, and its answer has no `meta`.
- FastAPI with a log line writes one line per request through our logging. That much every service
  has, if with a formatter of its own; it separates what the line costs from what the edge does.
"""

import logging
from collections.abc import MutableMapping
from decimal import Decimal
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from benchmarks.harness import Bench, Run
from shared.api import ApiResponse, install_edge, success_response
from shared.config import ApiSettings

_OPERATIONS = 1_000
_OK = 200

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


async def http(bench: Bench) -> None:
    """Compare answering one request after another."""
    await bench.compare(
        "http: one request",
        _OPERATIONS,
        {
            "shared: edge, envelope": _requests(_ours()),
            "bare FastAPI": _requests(_bare()),
            "FastAPI with a log line": _requests(_with_log_line(_bare())),
        },
    )


def _ours() -> FastAPI:
    app = FastAPI()

    @app.get("/orders/{order_id}")
    async def read(order_id: str) -> ApiResponse[_Order]:  # noqa: ARG001 - as a route would
        return success_response(_ORDER)

    install_edge(app, ApiSettings(), service="benchmarks", registry=CollectorRegistry())
    return app


def _bare() -> FastAPI:
    app = FastAPI()

    @app.get("/orders/{order_id}")
    async def read(order_id: str) -> _Order:  # noqa: ARG001 - as a route would
        return _ORDER

    return app


def _with_log_line(app: ASGIApp) -> ASGIApp:
    async def logged(scope: Scope, receive: Receive, send: Send) -> None:
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await app(scope, receive, noting)
        _logger.info(
            "request",
            extra={"method": scope["method"], "path": scope["path"], "status": status},
        )

    return logged


def _requests(app: ASGIApp) -> Run:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

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
        "method": "GET",
        "root_path": "",
        "path": "/orders/5123456789",
        "raw_path": b"/orders/5123456789",
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:8000"),
            (b"accept", b"application/json"),
            (b"user-agent", b"benchmarks"),
            (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ],
    }
