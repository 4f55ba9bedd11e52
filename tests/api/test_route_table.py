"""What the edge answers by a plain route is what it answers through FastAPI, in every respect."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry
from starlette.routing import Host, Route

from shared.api import ApiResponse, Edge, install_edge, install_exception_handlers, success_response
from shared.api.edge.route_table import RouteTable
from shared.config import ApiSettings, LoggingSettings
from shared.context import current
from shared.errors import NotFoundError
from shared.logging import configure_logging

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HEADERS = {"traceparent": TRACEPARENT, "x-request-id": "req-1", "x-correlation-id": "corr-1"}


async def answer_of(name: str) -> ApiResponse[str]:
    return success_response(name)


def build(app: FastAPI) -> None:  # noqa: C901 - one endpoint for each thing an answer can be
    router = APIRouter(prefix="/items")

    @app.get("/fixed")
    async def fixed() -> ApiResponse[str]:
        context = current()
        return success_response(context.request_id if context else "")

    @app.get("/orders/latest")
    async def latest() -> ApiResponse[str]:
        return success_response("latest")

    @app.get("/orders/{order_id}")
    async def order(order_id: str) -> ApiResponse[str]:
        return success_response(order_id)

    @app.get("/orders/hidden")
    async def hidden() -> ApiResponse[str]:
        return success_response("never")

    @app.post("/orders/{order_id}")
    async def placed(order_id: str, request: Request) -> ApiResponse[str]:
        return success_response(order_id + (await request.body()).decode())

    @app.get("/numbers/{number:int}")
    async def number(number: int) -> ApiResponse[int]:
        return success_response(number)

    @app.get("/files/{path:path}")
    async def file(path: str) -> ApiResponse[str]:
        return success_response(path)

    @app.get("/files/{name}/size")
    async def size(name: str) -> ApiResponse[str]:
        return success_response("never " + name)

    @app.get("/where/{name}")
    async def where(name: str, request: Request) -> ApiResponse[list[str]]:
        route = request.scope["route"].path
        url = request.url_for("where", name=name)
        return success_response([route, str(url), request.path_params["name"], request.url.path])

    @app.get("/missing")
    async def missing() -> ApiResponse[str]:
        raise NotFoundError("no order 7")

    @app.get("/refused")
    async def refused() -> ApiResponse[str]:
        raise HTTPException(409, "not now", headers={"x-why": "busy"})

    @app.get("/broken")
    async def broken() -> ApiResponse[str]:
        raise RuntimeError("it broke")

    @app.get("/unfit")
    async def unfit() -> ApiResponse[int]:
        return ApiResponse(data="none", meta=success_response(1).meta)

    @app.get("/own")
    async def own() -> Response:
        return PlainTextResponse("mine", 202, headers={"x-own": "1", "x-request-id": "theirs"})

    @app.get("/own-json")
    async def own_json() -> ApiResponse[str]:
        return JSONResponse({"own": 1})  # type: ignore[return-value]

    @app.get("/added")
    async def added(request: Request) -> ApiResponse[str]:
        request.state.answer_headers = [(b"x-added", b"1")]
        return success_response("added")

    @app.get("/guarded", dependencies=[Depends(lambda: None)])
    async def guarded() -> ApiResponse[str]:
        return success_response("guarded")

    @router.get("/{name}")
    async def item(name: str, of: int = 1) -> ApiResponse[str]:
        return success_response(f"{name} {of}")

    app.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v2/{shop}")
    mounted = FastAPI()
    mounted.add_api_route("/items/{name}", item)
    app.mount("/mounted", mounted)

    async def raw(_: Request) -> Response:
        return PlainTextResponse("raw")

    app.router.routes.insert(0, Route("/v1/items/raw", raw))


ASKED = [
    *(("GET", path) for path in ("/fixed", "/orders/latest", "/orders/7", "/orders/hidden")),
    *(
        ("GET", path)
        for path in ("/orders/a%2Fb", "/orders/%0A", "/orders/7/", "/fixed/", "//fixed")
    ),
    *(("GET", path) for path in ("/numbers/7", "/numbers/x", "/files/a", "/files/a/size")),
    *(("GET", path) for path in ("/where/a", "/where/%C3%A9", "/missing", "/refused", "/broken")),
    *(("GET", path) for path in ("/unfit", "/own", "/own-json", "/added", "/guarded", "/none")),
    *(("GET", path) for path in ("/v1/items/raw", "/v1/items/a?of=2", "/v1/items/a?of=x")),
    *(("GET", path) for path in ("/v2/shop/items/a", "/mounted/items/a", "/mounted/none")),
    *((method, "/orders/7") for method in ("HEAD", "OPTIONS", "POST", "PUT", "BREW")),
]


def application(registry: CollectorRegistry) -> FastAPI:
    app = FastAPI()
    build(app)
    install_exception_handlers(app)
    install_edge(app, ApiSettings(), service="shop-service", registry=registry)
    return app


@pytest.fixture
def lines(capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """The lines written since the last call; as a service in production writes them."""
    root = logging.getLogger()
    level, others = root.level, list(root.handlers)
    root.handlers.clear()  # pytest's own, which would want whole records
    configure_logging(LoggingSettings(), service="shop-service", environment="prod")
    yield lambda: [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = others
    root.setLevel(level)
    logging.captureWarnings(capture=False)


async def ask(app: FastAPI, method: str, path: str) -> tuple[Any, ...]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as http:
        answer = await http.request(method, path, headers=HEADERS)
    headers = dict(answer.headers)
    for changing in ("traceparent", "content-length"):
        headers.pop(changing, None)
    body = re.sub(r'"timestamp":"[^"]+"|ERR-\w+|err_\w+|"error_id":"[^"]+"', "", answer.text)
    return answer.status_code, headers, body


def counted(registry: CollectorRegistry) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith(("_sum", "_created", "_bucket"))
    ]


def told(line: dict[str, Any]) -> dict[str, Any]:
    """What a line tells but for what no two of them share."""
    changing = ("timestamp", "span_id", "started", "duration_ms", "exception", "error_id")
    return {name: value for name, value in line.items() if name not in changing}


@pytest.mark.parametrize(("method", "path"), ASKED)
async def test_the_answer_the_line_and_the_metrics_are_the_same(
    lines: Callable[[], list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
) -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    short = await ask(application(registries[0]), method, path)
    told_short = [told(line) for line in lines()]
    monkeypatch.setattr(RouteTable, "find", lambda *_: None)
    assert short == await ask(application(registries[1]), method, path)
    assert told_short == [told(line) for line in lines()]
    assert counted(registries[0]) == counted(registries[1])
    assert [line["message"] for line in told_short if "span" in line]


async def test_a_plain_route_is_answered_before_fastapi_searches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = application(CollectorRegistry())

    async def never(*_: object) -> None:
        raise AssertionError("the long way")

    monkeypatch.setattr(AsyncExitStackMiddleware, "__call__", never)
    for path in ("/fixed", "/orders/latest", "/orders/7", "/v1/items/a", "/v2/s/items/a"):
        status, *_ = await ask(app, "GET", path)
        assert status == 200, path


async def test_an_endpoint_that_raises_is_called_once() -> None:
    app, calls = FastAPI(), []

    @app.get("/once")
    async def once() -> str:
        calls.append("called")
        raise LookupError("nothing there")

    @app.exception_handler(LookupError)
    async def handler(_: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 404)

    install_edge(app, ApiSettings(), service="shop-service", metrics=False)
    assert (await ask(app, "GET", "/once"))[::2] == (404, "nothing there")
    assert calls == ["called"]


async def test_routes_that_come_and_go_are_followed() -> None:
    app = application(CollectorRegistry())
    assert (await ask(app, "GET", "/late"))[0] == 404
    app.add_api_route("/late", answer_of, methods=["GET"])
    assert (await ask(app, "GET", "/late?name=n"))[0] == 200
    assert (await ask(app, "GET", "/fixed"))[0] == 200
    app.router.routes[:] = [r for r in app.routes if getattr(r, "path", "") != "/fixed"]
    assert (await ask(app, "GET", "/fixed"))[0] == 404


async def test_what_could_take_a_request_before_keeps_fastapi_s_way() -> None:
    app = application(CollectorRegistry())

    async def elsewhere(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("elsewhere")(scope, receive, send)

    app.router.routes.insert(0, Host("shop", elsewhere))
    assert (await ask(app, "GET", "/fixed"))[2] == "elsewhere"


async def test_a_middleware_inside_the_edge_sees_every_request() -> None:
    app, seen = FastAPI(), []
    build(app)

    class Counting:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            seen.append(scope["path"])
            await self.inner(scope, receive, send)

    app.add_middleware(Counting)
    install_edge(app, ApiSettings(), service="shop-service", metrics=False)
    assert (await ask(app, "GET", "/fixed"))[0] == 200
    assert seen == ["/fixed"]


def test_an_application_that_is_not_fastapi_s_has_no_plain_routes() -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    edge = Edge(bare, service="shop-service")
    assert edge.routes.find({"method": "GET", "path": "/"}) is None
