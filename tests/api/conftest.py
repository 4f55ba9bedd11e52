from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from shared.api import install_edge, install_exception_handlers
from shared.config import ApiSettings

MakeApp = Callable[..., FastAPI]
Serve = Callable[[FastAPI], AbstractAsyncContextManager[str]]
Spans = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def make_app(registry: CollectorRegistry) -> MakeApp:
    """An application with the edge; settings by keyword."""

    def make(app: FastAPI | None = None, **settings: Any) -> FastAPI:
        app = app or FastAPI()
        install_exception_handlers(app)
        install_edge(app, ApiSettings(**settings), service="shop-service", registry=registry)
        return app

    return make


@pytest.fixture
def client() -> Iterator[Callable[..., httpx.AsyncClient]]:
    """A client that sees answers as a caller does, not the exceptions behind them."""

    def make(app: Any, **kwargs: Any) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, **kwargs)
        return httpx.AsyncClient(transport=transport, base_url="http://shop")

    return make  # type: ignore[return-value]


@pytest.fixture
def serve() -> Serve:
    """A real server on a free port; entering gives its address."""

    @asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            config = uvicorn.Config(
                app, log_config=None, access_log=False, lifespan="on", proxy_headers=False
            )
            server = uvicorn.Server(config)
            task = asyncio.create_task(server._serve(sockets=[listener]))
            while not server.started:
                await asyncio.sleep(0.005)
                assert not task.done()
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                server.should_exit = True
                await task

    return run


@pytest.fixture
def spans(caplog: pytest.LogCaptureFixture) -> Spans:
    """The server spans written so far, as the fields of their records."""
    caplog.set_level(logging.INFO)

    def read() -> list[dict[str, Any]]:
        records = [vars(record) for record in caplog.records if record.name == "shared.tracing"]
        return [record for record in records if record["kind"] == "server"]

    return read
