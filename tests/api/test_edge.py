from __future__ import annotations

import asyncio
import logging
import random
import string
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import REGISTRY, CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from shared.api import (
    Edge,
    RequestContextDep,
    install_edge,
    install_exception_handlers,
    success_response,
)
from shared.config import ApiSettings
from shared.context import current
from shared.metrics.middleware import PrometheusMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    MakeApp = Callable[..., FastAPI]
    Client = Callable[..., httpx.AsyncClient]
    Spans = Callable[[], list[dict[str, Any]]]

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"


def get(path: str) -> dict[str, Any]:
    """The scope of a GET request."""
    return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}


def counted(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    """Requests by method, endpoint and status."""
    return {
        (s.labels["method"], s.labels["endpoint"], s.labels["status"]): s.value
        for metric in registry.collect()
        for s in metric.samples
        if s.name == "http_requests_total"
    }


def in_progress(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("http_requests_in_progress", {"service": "shop-service"})


# -- ids -------------------------------------------------------------------------------------------


async def test_one_request_has_one_set_of_ids(make_app: MakeApp, client: Client) -> None:
    app = FastAPI()

    @app.get("/ids")
    async def ids(request: Request, context: RequestContextDep) -> Any:
        bound = current()
        assert bound is not None
        assert bound.service == "shop-service"
        return {
            "state": [request.state.request_id, request.state.correlation_id],
            "bound": [bound.request_id, bound.correlation_id],
            "asked": [context.request_id, context.correlation_id],
            "trace": [request.state.trace_id, bound.trace.trace_id, context.trace_id],
            "span": bound.trace.span_id,
            "envelope": success_response(None),
        }

    async with client(make_app(app)) as http:
        answer = await http.get("/ids", headers={"X-Request-ID": "r-1", "X-Correlation-ID": "c-1"})
    body = answer.json()
    assert body["state"] == body["bound"] == body["asked"] == ["r-1", "c-1"]
    assert (
        body["envelope"]["meta"].items() >= {"request_id": "r-1", "correlation_id": "c-1"}.items()
    )
    assert answer.headers["X-Request-ID"] == "r-1"
    assert answer.headers["X-Correlation-ID"] == "c-1"
    assert answer.headers["X-Service-Name"] == "shop-service"
    assert set(body["trace"]) == {answer.headers["X-Trace-ID"]}
    assert answer.headers["traceparent"] == f"00-{body['trace'][0]}-{body['span']}-03"


async def test_ids_are_generated_when_the_caller_sends_none(
    make_app: MakeApp, client: Client
) -> None:
    async with client(make_app()) as http:
        answer = await http.get("/nothing")
    assert answer.headers["X-Request-ID"].startswith("req_")
    assert len(answer.headers["X-Request-ID"]) == len("req_") + 12
    assert answer.headers["X-Correlation-ID"] == answer.headers["X-Trace-ID"]


@pytest.mark.parametrize(
    "bad",
    [
        b"x" * 10_000,
        b"a\r\nSet-Cookie: x=1",
        b"a\nlevel=error",
        "ж".encode(),
        b"\xff\xfe",
        b"",
        b"a b",
        b'a"b',
        b"../../etc",
    ],
    ids=lambda value: repr(value[:12]),
)
async def test_an_unsafe_id_is_replaced(make_app: MakeApp, bad: bytes) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = get("/nothing") | {"headers": [(b"x-request-id", bad), (b"x-correlation-id", bad)]}
    await make_app()(scope, receive, send)
    headers = dict(sent[0]["headers"])
    assert headers[b"x-request-id"].startswith(b"req_")
    assert headers[b"x-correlation-id"] == headers[b"x-trace-id"]


async def test_two_different_request_ids_are_none(make_app: MakeApp, client: Client) -> None:
    async with client(make_app()) as http:
        answer = await http.get("/", headers=[("X-Request-ID", "a"), ("X-Request-ID", "b")])
    assert answer.headers["X-Request-ID"].startswith("req_")


async def test_an_endpoint_cannot_send_other_ids(make_app: MakeApp, client: Client) -> None:
    app = FastAPI()

    @app.get("/")
    async def own() -> Any:
        return PlainTextResponse("", headers={"X-Request-ID": "mine", "X-Own": "kept"})

    async with client(make_app(app)) as http:
        answer = await http.get("/", headers={"X-Request-ID": "r-1"})
    assert answer.headers.get_list("X-Request-ID") == ["r-1"]
    assert answer.headers["X-Own"] == "kept"


# -- trace -----------------------------------------------------------------------------------------


async def test_the_server_span_is_the_callers_child(
    make_app: MakeApp, client: Client, spans: Spans
) -> None:
    app = FastAPI()

    @app.get("/")
    async def tracestate() -> Any:
        context = current()
        assert context is not None
        return context.trace.tracestate

    async with client(make_app(app)) as http:
        answer = await http.get(
            "/",
            headers=[("traceparent", TRACEPARENT), ("tracestate", "a=1"), ("tracestate", "b=2")],
        )
    (span,) = spans()
    assert answer.headers["X-Trace-ID"] == span["trace_id"] == TRACE
    assert span["parent_span_id"] == SPAN
    assert span["span_id"] != SPAN
    assert answer.headers["traceparent"] == f"00-{TRACE}-{span['span_id']}-01"
    assert answer.json() == "a=1,b=2"


@pytest.mark.parametrize(
    ("traceparent", "taken"),
    [
        (TRACEPARENT, True),
        (f"00-{TRACE}-{SPAN}-00", True),
        (f"00-{TRACE}-{SPAN}-ff", True),
        (f"01-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-brings", True),
        (f" {TRACEPARENT} ", True),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"cc-{TRACE}-{SPAN}-01.more", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (TRACEPARENT.upper(), False),
        (f"00-{TRACE[:-1]}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}a-01", False),
        (f"00-{TRACE}-{SPAN}-1", False),
        (f"0-{TRACE}-{SPAN}-01", False),
        (f"00-{TRACE}-{SPAN}", False),
        (f"00_{TRACE}_{SPAN}_01", False),
        (f"00-{TRACE[:-1]}g-{SPAN}-01", False),
        (f"{TRACEPARENT},{TRACEPARENT}", False),
        ("", False),
        ("-" * 10_000, False),
        ("00-0af76519-16cd-43dd-8448-eb211c80319c-01", False),
    ],
)
async def test_traceparent_is_read_to_the_letter(
    make_app: MakeApp, client: Client, traceparent: str, taken: bool
) -> None:
    async with client(make_app()) as http:
        answer = await http.get("/", headers={"traceparent": traceparent})
    assert (answer.headers["X-Trace-ID"] == TRACE) is taken
    assert len(answer.headers["X-Trace-ID"]) == 32


async def test_two_traceparents_start_a_new_trace(make_app: MakeApp, client: Client) -> None:
    async with client(make_app()) as http:
        answer = await http.get(
            "/", headers=[("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)]
        )
    assert answer.headers["X-Trace-ID"] != TRACE


async def test_the_context_reaches_streams_threads_and_background_tasks(
    make_app: MakeApp, client: Client
) -> None:
    app = FastAPI()
    seen: dict[str, str | None] = {}

    def note(place: str) -> None:
        context = current()
        seen[place] = context.request_id if context else None

    def from_thread() -> None:
        note("thread")

    @app.get("/", dependencies=[Depends(from_thread)])
    async def stream(background: BackgroundTasks) -> Any:
        background.add_task(note, "background")

        async def chunks() -> AsyncIterator[str]:
            note("stream")
            yield "a"

        return StreamingResponse(chunks(), background=background)

    async with client(make_app(app)) as http:
        await http.get("/", headers={"X-Request-ID": "r-1"})
    assert seen == {"thread": "r-1", "stream": "r-1", "background": "r-1"}
    assert current() is None


async def test_requests_at_once_keep_their_own_ids(make_app: MakeApp, client: Client) -> None:
    app = FastAPI()
    everyone = asyncio.Barrier(20)

    @app.get("/")
    async def mine() -> Any:
        await everyone.wait()
        context = current()
        return context.request_id if context else None

    async with client(make_app(app)) as http:
        answers = await asyncio.gather(
            *(http.get("/", headers={"X-Request-ID": f"r-{i}"}) for i in range(20))
        )
    assert [a.json() for a in answers] == [f"r-{i}" for i in range(20)]


# -- metrics and access log ------------------------------------------------------------------------


async def test_the_access_log_is_the_server_span(
    make_app: MakeApp, client: Client, spans: Spans
) -> None:
    app = FastAPI()
    router = APIRouter()

    @router.get("/orders/{order_id}")
    async def order(order_id: str) -> str:
        return order_id

    app.include_router(router, prefix="/api/v1")
    async with client(make_app(app)) as http:
        await http.get("/api/v1/orders/7?token=secret")
    (span,) = spans()
    assert span["span"] == "GET /api/v1/orders/{order_id}"
    assert span["attributes"] == {
        "method": "GET",
        "route": "/api/v1/orders/{order_id}",
        "path": "/api/v1/orders/7",
        "status": 200,
        "client": "127.0.0.1",
    }
    assert span["duration_ms"] >= 0
    assert "error" not in span


async def test_routes_are_counted_under_their_templates(
    make_app: MakeApp, client: Client, registry: CollectorRegistry, tmp_path: Path
) -> None:
    (tmp_path / "logo.svg").write_text("<svg/>")
    app = FastAPI()
    inner, outer, plain = APIRouter(), APIRouter(), APIRouter()

    @inner.get("/{item}")
    async def item(item: str) -> str:
        return item

    outer.include_router(inner, prefix="/items")
    app.include_router(outer, prefix="/v1")
    app.include_router(outer, prefix="/v2")

    async def raw(request: Request) -> Any:
        return PlainTextResponse(request.url.path)

    plain.add_route("/raw/{name}", raw)
    plain.mount("/assets", StaticFiles(directory=tmp_path))
    app.include_router(plain, prefix="/plain")

    shop = FastAPI()
    shop.add_api_route("/carts/{cart}", item)
    app.mount("/shops/{shop}", shop)
    app.mount("/static", StaticFiles(directory=tmp_path))
    app.mount("/old", Starlette(routes=[Route("/page/{n}", raw), Mount("/deep", raw_app)]))

    expected = {
        "/v1/items/a": "/v1/items/{item}",
        "/v2/items/b": "/v2/items/{item}",
        "/plain/raw/c": "/plain/raw/{name}",
        "/plain/assets/logo.svg": "/plain/assets/{path}",
        "/shops/acme/carts/9": "/shops/{shop}/carts/{cart}",
        "/shops/acme/docs": "/shops/{shop}/docs",
        "/shops/acme/nothing": "/shops/{shop}/{path}",
        "/static/logo.svg": "/static/{path}",
        "/static/none": "/static/{path}",
        "/old/page/3": "/old/page/{n}",
        "/old/deep/x/y": "/old/deep/{path}",
        "/openapi.json": "/openapi.json",
        "/nothing": "unmatched",
        "/v1/items": "unmatched",
    }
    async with client(make_app(app)) as http:
        for path, template in expected.items():
            before = counted(registry)
            await http.get(path)
            new = [k for k, v in counted(registry).items() if v != before.get(k)]
            assert [endpoint for _, endpoint, _ in new] == [template], path


async def raw_app(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("raw")(scope, receive, send)


async def test_a_scan_makes_one_series(make_app: MakeApp, registry: CollectorRegistry) -> None:
    rng = random.Random(7)
    letters = string.ascii_letters + "/._-%"
    app = make_app()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        del message

    for number in range(10_000):
        scope = get("/" + "".join(rng.choices(letters, k=12)))
        await app(scope | ({"method": f"M{number}"} if number % 2 else {}), receive, send)
    assert counted(registry) == {
        ("GET", "unmatched", "404"): 5000,
        ("OTHER", "unmatched", "404"): 5000,
    }


async def test_a_clock_set_back_meanwhile_is_no_duration(
    make_app: MakeApp,
    client: Client,
    registry: CollectorRegistry,
    spans: Spans,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = FastAPI()

    @app.get("/")
    async def answer() -> None:
        monkeypatch.setattr("time.time", lambda: 0.0)

    async with client(make_app(app)) as http:
        await http.get("/")
    monkeypatch.undo()
    labels = {"service": "shop-service", "method": "GET", "endpoint": "/"}
    measured = registry.get_sample_value("http_request_duration_seconds_sum", labels)
    assert measured is not None
    assert measured >= 0
    (span,) = spans()
    assert span["duration_ms"] >= 0


async def test_the_gauge_returns_to_zero_whatever_happens(
    make_app: MakeApp, client: Client, registry: CollectorRegistry
) -> None:
    app = FastAPI()
    seen = []

    @app.get("/{how}")
    async def end(how: str) -> Any:
        seen.append(in_progress(registry))
        if how == "error":
            raise RuntimeError(how)
        if how == "refused":
            raise HTTPException(403)
        if how == "cancelled":
            raise asyncio.CancelledError
        if how == "midway":

            async def chunks() -> AsyncIterator[str]:
                yield "a"
                raise RuntimeError(how)

            return StreamingResponse(chunks())
        return how

    async with client(make_app(app)) as http:
        for how in ("fine", "error", "refused", "midway"):
            await http.get(f"/{how}")
        with pytest.raises(asyncio.CancelledError):
            await http.get("/cancelled")
    assert seen == [1.0] * 5
    assert in_progress(registry) == 0
    assert counted(registry) == {
        ("GET", "/{how}", "200"): 2,
        ("GET", "/{how}", "403"): 1,
        ("GET", "/{how}", "500"): 2,
    }


async def test_health_and_scrape_stay_out_of_the_access_log(
    make_app: MakeApp, client: Client, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    app = FastAPI()
    app.get("/api/v1/health/ready")(lambda: "ok")
    async with client(make_app(app)) as http:
        for path in ("/api/v1/health/ready", "/metrics"):
            assert (await http.get(path)).status_code == 200
        assert spans() == []
        caplog.set_level(logging.DEBUG, logger="shared.tracing")
        await http.get("/metrics")
    assert [span["span"] for span in spans()] == ["GET /metrics"]


async def test_a_failing_health_check_is_in_the_access_log(
    make_app: MakeApp, client: Client, spans: Spans
) -> None:
    app = FastAPI()

    @app.get("/health")
    async def health() -> None:
        raise HTTPException(503)

    async with client(make_app(app)) as http:
        await http.get("/health")
    assert [span["error"] for span in spans()] == ["HTTP 503"]


async def test_the_metrics_are_served(make_app: MakeApp, client: Client) -> None:
    async with client(make_app(metrics_path="/internal/metrics")) as http:
        await http.get("/nothing")
        answer = await http.get("/internal/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'http_requests_total{endpoint="unmatched"' in answer.text


async def test_an_old_metrics_middleware_inside_counts_nothing_twice(client: Client) -> None:
    app = FastAPI()
    app.add_middleware(PrometheusMiddleware, service_name="twice")
    install_edge(app, ApiSettings(), service="twice")
    async with client(app) as http:
        await http.get("/nothing")
    labels = {"service": "twice", "method": "GET", "endpoint": "unmatched", "status": "404"}
    assert REGISTRY.get_sample_value("http_requests_total", labels) == 1


async def test_an_edge_inside_an_edge_decides_nothing(
    make_app: MakeApp, client: Client, spans: Spans
) -> None:
    inner, app = FastAPI(), FastAPI()
    install_exception_handlers(inner)
    install_edge(inner, ApiSettings(), service="inner", registry=CollectorRegistry())
    app.mount("/inner", inner)
    async with client(make_app(app)) as http:
        answer = await http.get("/inner/nothing")
    assert answer.headers.get_list("X-Service-Name") == ["shop-service"]
    assert len(spans()) == 1


def test_installing_twice_leaves_one_edge() -> None:
    app = FastAPI()
    for name in ("first", "second"):
        install_edge(app, ApiSettings(), service=name, registry=CollectorRegistry())
    (entry,) = app.user_middleware
    assert entry.kwargs["service"] == "second"


# -- body limit ------------------------------------------------------------------------------------


@pytest.fixture
def reader() -> FastAPI:
    app = FastAPI()

    @app.post("/")
    async def read(request: Request) -> int:
        return len(await request.body())

    @app.post("/json")
    async def parse(body: dict[str, Any]) -> int:
        return len(body)

    return app


async def chunked(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 10):
        yield b"x" * 10


@pytest.mark.parametrize("path", ["/", "/json"])
async def test_a_body_over_the_limit_is_refused(
    make_app: MakeApp, client: Client, reader: FastAPI, path: str
) -> None:
    json = {"Content-Type": "application/json"}
    async with client(make_app(reader, body_limit_bytes=100)) as http:
        announced = await http.post(path, content=b"x" * 101, headers=json)
        counted_up = await http.post(path, content=chunked(110), headers=json)
        lied = await http.post(path, content=chunked(110), headers=json | {"Content-Length": "5"})
        absurd = await http.post(path, content=b"", headers=json | {"Content-Length": "9" * 5000})
    for answer in (announced, counted_up, lied, absurd):
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "HTTP_413"
        assert answer.json()["meta"]["request_id"] == answer.headers["X-Request-ID"]


async def test_a_body_at_the_limit_is_read(
    make_app: MakeApp, client: Client, reader: FastAPI
) -> None:
    async with client(make_app(reader, body_limit_bytes=100)) as http:
        assert (await http.post("/", content=b"x" * 100)).json() == 100
        assert (await http.post("/", content=chunked(100))).json() == 100
        garbage = await http.post("/", content=b"x", headers={"Content-Length": "-1"})
        assert garbage.json() == 1


async def test_a_plain_application_is_refused_for_too(client: Client) -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await Request(scope, receive).body()
        raise AssertionError

    async with client(Edge(plain, service="plain", body_limit_bytes=10)) as http:
        assert (await http.post("/", content=chunked(20))).status_code == 413


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"\xff\xfe{", 400), (b'{"a": "\xff"}', 400), (b"[" * 10_000, 400), (b"{", 422)],
    ids=["utf-16 mark", "broken utf-8", "depth 10,000", "unfinished"],
)
async def test_json_that_cannot_be_read_is_the_callers_error(
    make_app: MakeApp, client: Client, reader: FastAPI, content: bytes, status: int
) -> None:
    async with client(make_app(reader)) as http:
        answer = await http.post(
            "/json", content=content, headers={"Content-Type": "application/json"}
        )
    assert answer.status_code == status
    assert "error" in answer.json()


# -- deadline --------------------------------------------------------------------------------------


async def test_an_answer_that_does_not_begin_in_time_is_504(
    make_app: MakeApp, client: Client, spans: Spans
) -> None:
    app = FastAPI()
    ended = []

    @app.get("/")
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with client(make_app(app, request_timeout_seconds=0.01)) as http:
        answer = await http.get("/")
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "TIMEOUT"
    assert answer.headers["X-Request-ID"] == answer.json()["meta"]["request_id"]
    assert ended == [True]
    assert [span["error"] for span in spans()] == ["HTTP 504"]


async def test_a_stream_that_has_begun_may_outlast_the_deadline(
    make_app: MakeApp, client: Client
) -> None:
    app = FastAPI()

    @app.get("/")
    async def stream() -> Any:
        async def chunks() -> AsyncIterator[str]:
            yield "a"
            await asyncio.sleep(0.05)
            yield "b"

        return StreamingResponse(chunks())

    async with client(make_app(app, request_timeout_seconds=0.02)) as http:
        assert (await http.get("/")).text == "ab"


async def test_a_timeout_of_the_applications_own_is_unexpected(
    make_app: MakeApp, client: Client
) -> None:
    app = FastAPI()

    @app.get("/")
    async def own() -> None:
        raise TimeoutError

    async with client(make_app(app, request_timeout_seconds=10)) as http:
        assert (await http.get("/")).status_code == 500


# -- unexpected errors -----------------------------------------------------------------------------


@pytest.fixture
def broken() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def fail() -> None:
        raise RuntimeError("password=hunter2")

    @app.get("/midway")
    async def midway() -> Any:
        async def chunks() -> AsyncIterator[str]:
            yield "a"
            raise RuntimeError("midway")

        return StreamingResponse(chunks())

    @app.get("/afterwards")
    async def afterwards(background: BackgroundTasks) -> str:
        async def task() -> None:
            raise RuntimeError("afterwards")

        background.add_task(task)
        return "done"

    return app


async def test_an_unexpected_error_says_an_id_and_nothing_else(
    make_app: MakeApp,
    client: Client,
    broken: FastAPI,
    caplog: pytest.LogCaptureFixture,
    spans: Spans,
) -> None:
    async with client(make_app(broken)) as http:
        answer = await http.get("/", headers={"X-Request-ID": "r-1", "traceparent": TRACEPARENT})
    assert answer.status_code == 500
    assert "hunter2" not in answer.text
    error = answer.json()["error"]
    assert error["code"] == "INTERNAL_ERROR"
    assert list(error["details"]) == ["error_id"]
    assert answer.headers["X-Request-ID"] == answer.json()["meta"]["request_id"] == "r-1"
    assert answer.headers["X-Trace-ID"] == TRACE
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert vars(record)["error_id"] == error["details"]["error_id"]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "password=hunter2"
    assert [span["error"] for span in spans()] == ["RuntimeError"]


async def test_an_unexpected_error_is_raised_on(make_app: MakeApp, broken: FastAPI) -> None:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(make_app(broken)), base_url="http://shop"
    ) as http:
        with pytest.raises(RuntimeError, match="hunter2"):
            await http.get("/")


@pytest.mark.parametrize(("path", "error"), [("/midway", "RuntimeError"), ("/afterwards", None)])
async def test_there_is_no_second_answer(
    make_app: MakeApp,
    broken: FastAPI,
    caplog: pytest.LogCaptureFixture,
    spans: Spans,
    path: str,
    error: str | None,
) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = get(path) | {"asgi": {"spec_version": "2.4"}}
    with pytest.raises(RuntimeError):
        await make_app(broken)(scope, receive, send)
    assert sent.count("http.response.start") == 1
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1
    assert [span.get("error") for span in spans()] == [error]


async def test_without_handlers_the_edge_answers_itself(client: Client) -> None:
    async def plain(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("hunter2")

    async with client(Edge(plain, service="plain")) as http:
        answer = await http.get("/")
    assert answer.json()["error"]["code"] == "INTERNAL_ERROR"
    assert answer.headers["X-Service-Name"] == "plain"


async def test_an_error_raised_twice_is_written_twice(
    make_app: MakeApp, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    app, always = FastAPI(), RuntimeError("the same object")

    @app.get("/")
    async def fail() -> None:
        raise always

    async with client(make_app(app)) as http:
        ids = {(await http.get("/")).json()["error"]["details"]["error_id"] for _ in range(2)}
    assert len(ids) == 2
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 2


# -- proxies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "expected"),
    [
        ((), ["10.0.0.9", "http"]),
        (("192.0.2.0/24",), ["10.0.0.9", "http"]),
        (("10.0.0.0/8",), ["203.0.113.7", "https"]),
    ],
)
async def test_forwarded_headers_are_believed_from_proxies_only(
    make_app: MakeApp, client: Client, trusted: tuple[str, ...], expected: list[str]
) -> None:
    app = FastAPI()

    @app.get("/")
    async def who(request: Request) -> Any:
        assert request.client is not None
        return [request.client.host, request.url.scheme]

    headers = {"X-Forwarded-For": "1.2.3.4, 203.0.113.7, 10.1.1.1", "X-Forwarded-Proto": "https"}
    async with client(make_app(app, trusted_proxies=trusted), client=("10.0.0.9", 1)) as http:
        assert (await http.get("/", headers=headers)).json() == expected


def test_a_proxy_that_is_no_address_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        install_edge(FastAPI(), ApiSettings(trusted_proxies=("nonsense",)), service="shop-service")
