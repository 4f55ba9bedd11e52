"""WebSockets through the edge, spoken in ASGI messages."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Query, WebSocket

from shared.context import current
from shared.errors import ForbiddenError, ServiceUnavailableError


class Peer:
    """A WebSocket client of an ASGI application."""

    def __init__(self, path: str, *, denial: bool = True) -> None:
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": path.partition("?")[0],
            "query_string": path.partition("?")[2].encode(),
            "headers": [(b"x-request-id", b"r-1")],
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}} if denial else {},
        }
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.sent: list[dict[str, Any]] = []

    def say(self, text: str) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})

    async def run(self, app: Any) -> None:
        async def send(message: Any) -> None:
            self.sent.append(message)

        await app(self.scope, self.incoming.get, send)


@pytest.fixture
def app(make_app: Any) -> FastAPI:
    app = FastAPI()

    @app.websocket("/echo/{room}")
    async def echo(socket: WebSocket, room: str) -> None:
        del room
        await socket.accept()
        while True:
            text = await socket.receive_text()
            context = current()
            await socket.send_text(f"{context.request_id if context else None}: {text}")

    @app.websocket("/fail")
    async def fail(socket: WebSocket, how: Annotated[str, Query()]) -> None:
        if how.startswith("late"):
            await socket.accept()
        if how.endswith("forbidden"):
            raise ForbiddenError
        if how.endswith("unavailable"):
            raise ServiceUnavailableError("no database")
        if how.endswith("closed"):
            await socket.close()
            return
        raise RuntimeError("hunter2")

    result: FastAPI = make_app(app)
    return result


async def test_a_conversation_has_ids_and_a_span(app: FastAPI, spans: Any) -> None:
    peer = Peer("/echo/7")
    peer.say("hello")
    peer.leave()
    await peer.run(app)
    accept, answer = peer.sent
    assert dict(accept["headers"])[b"x-request-id"] == b"r-1"
    assert answer["text"] == "r-1: hello"
    (span,) = spans()
    assert span["span"] == "WEBSOCKET /echo/{room}"
    assert span["attributes"]["status"] == 101
    assert "error" not in span


@pytest.mark.parametrize(
    ("path", "status", "close"),
    [
        ("/fail?how=forbidden", 403, None),
        ("/fail?how=unavailable", 503, None),
        ("/fail", 422, None),
        ("/fail?how=late-forbidden", 101, (1008, "FORBIDDEN")),
        ("/fail?how=late-unavailable", 101, (1011, "SERVICE_UNAVAILABLE")),
        ("/fail?how=closed", 403, None),
        ("/nowhere", 403, None),
    ],
)
async def test_an_error_refuses_or_closes(
    app: FastAPI, spans: Any, path: str, status: int, close: tuple[int, str] | None
) -> None:
    peer = Peer(path)
    await peer.run(app)
    assert spans()[-1]["attributes"]["status"] == status
    if close:
        assert (peer.sent[-1]["code"], peer.sent[-1]["reason"]) == close
    elif peer.sent[0]["type"] == "websocket.http.response.start":
        assert peer.sent[0]["status"] == status
        assert dict(peer.sent[0]["headers"])[b"x-request-id"] == b"r-1"
    else:
        assert peer.sent[0]["type"] == "websocket.close"


@pytest.mark.parametrize(
    ("how", "denial", "last"),
    [
        ("early", True, "websocket.http.response.body"),
        ("early", False, None),
        ("late", True, "websocket.close"),
    ],
)
async def test_an_unexpected_error_is_told_by_its_id(
    app: FastAPI,
    spans: Any,
    caplog: pytest.LogCaptureFixture,
    how: str,
    denial: bool,
    last: str | None,
) -> None:
    peer = Peer(f"/fail?how={how}", denial=denial)
    with pytest.raises(RuntimeError):
        await peer.run(app)
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    error_id = vars(record)["error_id"]
    assert (peer.sent[-1]["type"] if peer.sent else None) == last
    if last:
        assert error_id in str(peer.sent[-1])
        assert "hunter2" not in str(peer.sent)
    assert [span["error"] for span in spans()] == ["RuntimeError"]
