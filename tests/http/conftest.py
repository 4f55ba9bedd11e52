from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from tests.http.wire import Answer, FaultyServer, assembled

if TYPE_CHECKING:
    from fastapi import FastAPI

Serve = Callable[..., AbstractAsyncContextManager[str]]
Misbehave = Callable[[Answer], AbstractAsyncContextManager[FaultyServer]]
Spans = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def serve() -> Serve:
    """A real server; entering gives its address. A given port is one that was served before."""

    @asynccontextmanager
    async def run(app: FastAPI, port: int = 0) -> AsyncIterator[str]:
        with socket.create_server(("127.0.0.1", port)) as listener:
            config = uvicorn.Config(
                assembled(app), log_config=None, access_log=False, proxy_headers=False
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
def misbehave() -> Misbehave:
    """A server of raw bytes; ``answer`` gets the number of the request, ``None`` cuts the line."""

    @asynccontextmanager
    async def run(answer: Answer) -> AsyncIterator[FaultyServer]:
        faulty = FaultyServer(answer)
        handlers: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handlers.add(asyncio.create_task(faulty.serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        faulty.url = "http://127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        try:
            yield faulty
        finally:
            server.close()
            for handler in handlers:
                handler.cancel()
            await asyncio.gather(*handlers, return_exceptions=True)
            await server.wait_closed()

    return run


@pytest.fixture
def spans(caplog: pytest.LogCaptureFixture) -> Spans:
    """The spans of one kind written so far, as the fields of their records."""
    caplog.set_level(logging.INFO)

    def read(kind: str) -> list[dict[str, Any]]:
        records = [vars(record) for record in caplog.records if record.name == "shared.tracing"]
        return [record for record in records if record["kind"] == kind]

    return read
