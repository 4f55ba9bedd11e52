"""What no well-meaning client sends, over a socket: an error in its form, or a good answer."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from fastapi import Body, FastAPI
from pydantic import BaseModel

from shared.api import ApiResponse, success_response

MakeApp = Callable[..., FastAPI]
Serve = Callable[[FastAPI], AbstractAsyncContextManager[str]]

LIMIT = 100_000


class Reply(NamedTuple):
    """An answer as it came."""

    status: int
    head: str
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


Send = Callable[[bytes], Awaitable[Reply]]


class Model(BaseModel):
    a: int
    b: dict[str, Any] = {}


def make_routes() -> FastAPI:
    app = FastAPI()

    @app.post("/anything")
    async def anything(body: Annotated[Any, Body()] = None) -> ApiResponse[Any]:
        return success_response(body)

    @app.post("/model")
    async def model(body: Model) -> ApiResponse[Model]:
        return success_response(body)

    @app.get("/words/{word}")
    async def words(word: str, q: str = "") -> ApiResponse[list[str]]:
        return success_response([word, q])

    @app.put("/words/{word}")
    async def put_word(word: str) -> None: ...

    @app.post("/ours")
    async def ours() -> ApiResponse[Any]:
        return success_response(object())

    return app


@pytest.fixture
async def send(make_app: MakeApp, serve: Serve) -> AsyncIterator[Send]:
    async with serve(make_app(make_routes(), body_limit_bytes=LIMIT)) as url:
        where = urlsplit(url)

        async def send(request: bytes) -> Reply:
            reader, writer = await asyncio.open_connection(where.hostname, where.port)
            writer.write(request)
            answer = b""
            while more := await reader.read(65536):
                answer += more
                head, end, body = answer.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                if end and length and len(body) >= int(length[1]):
                    break
            writer.close()
            head, _, body = answer.partition(b"\r\n\r\n")
            return Reply(int(head.split(b" ", 2)[1]), head.decode("latin-1"), body)

        yield send


def request(
    target: bytes, *fields: bytes, method: bytes = b"GET", body: bytes | None = None
) -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: shop", b"Connection: close", *fields]
    if body is not None:
        lines += [b"Content-Length: %d" % len(body)]
    return b"\r\n".join([*lines, b"", body or b""])


def post(target: bytes, body: bytes, media_type: bytes = b"application/json") -> bytes:
    return request(target, b"Content-Type: " + media_type, method=b"POST", body=body)


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        pytest.param(nested(100), 200, None, id="depth 100"),
        pytest.param(nested(300), 422, "VALIDATION_ERROR", id="depth 300"),
        pytest.param(nested(700), 422, "VALIDATION_ERROR", id="depth 700"),
        pytest.param(nested(10_000), 400, "HTTP_400", id="depth 10,000"),
        pytest.param(b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 400, "HTTP_400", id="objects"),
        pytest.param(b'"\\ud800"', 422, "VALIDATION_ERROR", id="half a surrogate pair"),
        pytest.param(b'{"\\udfff": 1}', 422, "VALIDATION_ERROR", id="half a pair as a key"),
        pytest.param(b'"\\u0000"', 200, None, id="NUL"),
        pytest.param(b"9" * 400, 200, None, id="a large number"),
        pytest.param(b"9" * 5000, 400, "HTTP_400", id="a number of 5,000 digits"),
        pytest.param(b'"\xff"', 400, "HTTP_400", id="not UTF-8"),
        pytest.param(b"", 200, None, id="nothing"),
        pytest.param(b" ", 422, "VALIDATION_ERROR", id="blank"),
        pytest.param(b"[1] 2", 422, "VALIDATION_ERROR", id="more behind the end"),
    ],
)
async def test_json(send: Send, body: bytes, status: int, code: str | None) -> None:
    reply = await send(post(b"/anything", body))
    assert reply.status == status
    assert code is None or reply.code == code


async def test_numbers_that_json_has_not_are_answered_as_null(send: Send) -> None:
    reply = await send(post(b"/anything", b"[NaN, Infinity, -Infinity, 1e999]"))
    assert json.loads(reply.body)["data"] == [None] * 4


async def test_of_a_key_twice_the_last_counts(send: Send) -> None:
    reply = await send(post(b"/model", b'{"a": "no number", "a": 2}'))
    assert json.loads(reply.body)["data"]["a"] == 2


async def test_numbers_that_json_has_not_are_no_integers(send: Send) -> None:
    assert (await send(post(b"/model", b'{"a": NaN}'))).code == "VALIDATION_ERROR"


async def test_what_we_cannot_write_ourselves_is_no_fault_of_the_caller(send: Send) -> None:
    assert (await send(post(b"/ours", b"{}"))).code == "INTERNAL_ERROR"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        pytest.param(post(b"/model", b'{"a": 1}', b"text/plain"), 422, id="not said to be JSON"),
        pytest.param(post(b"/model", b"--x", b"multipart/form-data"), 422, id="broken multipart"),
        pytest.param(request(b"/model", method=b"POST", body=b'{"a": 1}'), 422, id="no type"),
        pytest.param(post(b"/anything", b" " * (LIMIT + 1)), 413, id="over the limit"),
        pytest.param(
            request(b"/anything", b"Content-Length: 99999999", method=b"POST"), 413, id="announced"
        ),
        pytest.param(
            request(b"/anything", b"Transfer-Encoding: chunked", method=b"POST")
            + (b"4e20\r\n" + b" " * 20_000 + b"\r\n") * 6
            + b"0\r\n\r\n",
            413,
            id="chunked",
        ),
    ],
)
async def test_bodies(send: Send, message: bytes, status: int) -> None:
    reply = await send(message)
    assert reply.status == status
    assert reply.code in {"VALIDATION_ERROR", "HTTP_413"}


async def test_more_than_was_announced_is_not_read(send: Send) -> None:
    message = request(
        b"/anything",
        b"Content-Type: application/json",
        b"Content-Length: 3",
        method=b"POST",
    )
    reply = await send(message + b"[1][2, 3]")
    assert (reply.status, json.loads(reply.body)["data"]) == (200, [1])


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/words/%00?q=%00", 200),
        (b"/words/a%2Fb", 404),
        (b"/words/%zz?q=%", 200),
        (b"/words/%ff%fe?q=%ff", 200),
        (b"/words/../words/a", 404),
        (b"//words/a", 404),
        (b"/words/" + b"a" * 20_000, 200),
        (b"/words/a?" + b"q=1&" * 5_000, 200),
        (b"/nowhere%0d%0aX-Evil:%201", 404),
    ],
)
async def test_paths(send: Send, target: bytes, status: int) -> None:
    reply = await send(request(target))
    assert reply.status == status
    assert "X-Evil" not in reply.head
    assert json.loads(reply.body)["meta"]["request_id"] in reply.head


@pytest.mark.parametrize("method", [b"HEAD", b"OPTIONS", b"TRACE", b"DELETE", b"PATCH"])
async def test_a_method_the_path_has_not_is_told_all_it_has(send: Send, method: bytes) -> None:
    reply = await send(request(b"/words/a", method=method))
    assert reply.status == 405
    assert re.search(r"(?im)^allow: GET, PUT\r?$", reply.head)
    assert method == b"HEAD" or reply.code == "HTTP_405"


@pytest.mark.parametrize(
    ("accept", "problem"),
    [
        (b"image/png", False),
        (b"*/*", False),
        (b";;;q=x", False),
        (b"application/problem+json", True),
        (b"application/problem+json;q=0", False),
        (b"application/problem+json;q=0.4, application/json;q=0.5", False),
        (b"application/problem+json;q=0.5, application/json;q=0.4", True),
        (b"application/problem+json;q=nan", False),
        (b"a/b," * 2_000 + b"application/problem+json", True),
    ],
)
async def test_accept(send: Send, accept: bytes, problem: bool) -> None:
    reply = await send(request(b"/nowhere", b"Accept: " + accept))
    assert reply.status == 404
    assert ("application/problem+json" in reply.head) is problem


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(b"X-Request-ID: " + b"r" * 10_000, id="10 kB"),
        pytest.param(b"X-Request-ID: r\xc3\xbc", id="not ASCII"),
        pytest.param(b"X-Request-ID: a\tb", id="a tab"),
        pytest.param(b"X-Request-ID: a%0d%0aX-Evil: 1", id="encoded line break"),
        pytest.param(b"X-Request-ID: a\r\nX-Request-ID: b", id="twice"),
        pytest.param(b"X-Request-ID:", id="empty"),
    ],
)
async def test_ids_that_are_none_are_replaced(send: Send, field: bytes) -> None:
    reply = await send(request(b"/words/a", field))
    assert json.loads(reply.body)["meta"]["request_id"].startswith("req_")
    assert "X-Evil" not in reply.head


async def test_many_headers_are_read(send: Send) -> None:
    reply = await send(request(b"/words/a", *(b"X-%d: a" % number for number in range(1_000))))
    assert reply.status == 200
