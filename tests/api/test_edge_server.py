"""The edge behind a real server: what only a socket shows."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse

from shared.testing import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest
    from prometheus_client import CollectorRegistry


def in_progress(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("http_requests_in_progress", {"service": "shop-service"})


async def test_a_stream_arrives_piece_by_piece(make_app: Any, serve: Any, spans: Any) -> None:
    app, more = FastAPI(), asyncio.Event()

    @app.get("/")
    async def stream() -> Any:
        async def chunks() -> AsyncIterator[str]:
            yield "first"
            await more.wait()
            yield "second"

        return StreamingResponse(chunks())

    async with (
        serve(make_app(app)) as url,
        httpx.AsyncClient() as http,
        http.stream("GET", url) as answer,
    ):
        pieces = answer.aiter_text()
        assert await anext(pieces) == "first"
        assert spans() == []
        more.set()
        assert await anext(pieces) == "second"
        assert [piece async for piece in pieces] == []
    assert [span["attributes"]["status"] for span in spans()] == [200]


async def test_server_sent_events_arrive_with_ids(make_app: Any, serve: Any) -> None:
    app, more = FastAPI(), asyncio.Event()

    @app.get("/events", response_class=EventSourceResponse)
    async def events() -> AsyncIterator[dict[str, int]]:
        yield {"n": 1}
        await more.wait()
        yield {"n": 2}

    async with (
        serve(make_app(app)) as url,
        httpx.AsyncClient() as http,
        http.stream("GET", f"{url}/events") as answer,
    ):
        lines = (line async for line in answer.aiter_lines() if line)
        assert answer.headers["X-Request-ID"].startswith("req_")
        assert await anext(lines) == 'data: {"n": 1}'
        more.set()
        assert await anext(lines) == 'data: {"n": 2}'


async def test_a_client_that_leaves_is_no_error(
    make_app: Any,
    serve: Any,
    spans: Any,
    registry: CollectorRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, ended = FastAPI(), asyncio.Event()

    @app.get("/stream")
    async def stream() -> Any:
        async def chunks() -> AsyncIterator[str]:
            try:
                yield "first"
                await asyncio.Event().wait()
            finally:
                ended.set()

        return StreamingResponse(chunks())

    @app.post("/upload")
    async def upload(request: Request) -> int:
        return len(await request.body())

    def has_more(seen: int) -> bool:
        return len(spans()) > seen

    async with serve(make_app(app)) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        for head in (
            b"GET /stream HTTP/1.1\r\nHost: shop\r\n\r\n",
            b"POST /upload HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\n\r\nhalf",
        ):
            seen = len(spans())
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(head)
            await eventually(lambda: in_progress(registry) == 1)
            writer.close()
            await writer.wait_closed()
            await eventually(partial(has_more, seen))
        await ended.wait()
    assert in_progress(registry) == 0
    assert [(s["attributes"]["status"], s["error"]) for s in spans()] == [
        (200, "client disconnected"),
        (499, "client disconnected"),
    ]
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_the_server_does_not_write_the_stack_again(
    make_app: Any, serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()

    @app.get("/")
    async def fail() -> None:
        raise RuntimeError("once")

    async with serve(make_app(app)) as url, httpx.AsyncClient() as http:
        assert (await http.get(url)).status_code == 500
        assert (await http.get(f"{url}/nothing")).status_code == 404
    stacks = [r for r in caplog.records if r.exc_info and r.levelno >= logging.ERROR]
    assert [record.name for record in stacks] == ["shared.api.error_answers"]


async def test_a_large_upload_is_refused_and_the_server_goes_on(make_app: Any, serve: Any) -> None:
    app = FastAPI()

    @app.post("/")
    async def upload(request: Request) -> int:
        return len(await request.body())

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 65_536

    async with serve(make_app(app, body_limit_bytes=1000)) as url, httpx.AsyncClient() as http:
        assert (await http.post(url, content=b"x" * 4_000_000)).status_code == 413
        assert (await http.post(url, content=chunks())).status_code == 413
        assert (await http.post(url, content=b"x" * 1000)).json() == 1000


async def test_head_has_no_body_and_all_headers(make_app: Any, serve: Any) -> None:
    async with serve(make_app()) as url, httpx.AsyncClient() as http:
        answer = await http.head(f"{url}/nothing")
    assert answer.status_code == 404
    assert answer.content == b""
    assert answer.headers["X-Request-ID"].startswith("req_")
