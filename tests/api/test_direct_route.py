"""What a direct route answers is what FastAPI's own route answers, byte for byte."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator  # noqa: TC003 - FastAPI reads annotations
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Annotated, Any
from uuid import UUID

import httpx
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Path,
    Query,
    Request,
    Response,
)
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import CollectorRegistry
from pydantic import BaseModel, Field

from shared.api import ApiResponse, Links, Pagination, install_edge, success_response
from shared.api.edge.direct_route import DirectRoute, make_direct
from shared.api.models import ErrorDetail, Meta
from shared.config import ApiSettings
from shared.context import Context, TraceContext, bind


class Item(BaseModel):
    name: str
    price: Decimal = Decimal(1)
    note: str | None = None
    alias: str = Field(default="a", alias="otherName")


class SecretItem(Item):
    secret: str = "not for the caller"


@dataclass
class Row:
    name: str
    price: Decimal = Decimal(2)
    note: str | None = None


class Place(BaseModel):
    shop: str
    shelf: int


META = Meta(request_id="req_1", timestamp="2026-01-02T03:04:05Z")
LINKS = Links(self="/items", next="/items?page=2")
ITEM = Item(name="lamp é \ud7ff", price=Decimal("2.50"), otherName="x")
closed: list[str] = []


async def resource() -> AsyncIterator[str]:
    yield "resource"
    closed.append("closed")


def build(app: FastAPI) -> None:  # noqa: C901, PLR0915 - one endpoint for each thing a route can be
    router = APIRouter(prefix="/in/{tenant}")

    @app.get("/model/{number}")
    async def model(number: int) -> Item:
        return Item(name=str(number))

    @app.get("/filtered")
    async def filtered() -> Item:
        return SecretItem(name="lamp")

    @app.get("/from-dict", response_model=Item)
    async def from_dict() -> Any:
        return {"name": "lamp", "otherName": "y", "more": 1}

    @app.get("/from-attributes", response_model=Item)
    async def from_attributes() -> Any:
        return Row("lamp")

    @app.get("/invalid", response_model=Item)
    async def invalid() -> Any:
        return {"nothing": 1}

    @app.get("/list")
    async def many() -> list[Item]:
        return [ITEM, SecretItem(name="b")]

    @app.get("/created", status_code=201)
    async def created() -> Item:
        return ITEM

    @app.get("/empty", status_code=204)
    async def empty() -> None:
        return None

    @app.get("/nothing")
    async def nothing() -> None:
        return None

    @app.get("/untyped")
    async def untyped():  # type: ignore[no-untyped-def] # noqa: ANN202
        return {"a": Decimal(1)}

    @app.get("/unset", response_model_exclude_unset=True)
    async def unset() -> Item:
        return Item(name="lamp")

    @app.get("/by-name", response_model_by_alias=False)
    async def by_name() -> Item:
        return ITEM

    @app.get("/parameters/{key}")
    async def parameters(
        key: Annotated[UUID, Path(alias="key")],
        query: Annotated[list[int], Query()],
        agent: Annotated[str, Header(alias="x-agent")],
        request: Request,
        session: Annotated[str | None, Cookie()] = None,
        limit: Annotated[int, Query(ge=1, le=9)] = 5,
    ) -> dict[str, Any]:
        found = [request.url.path, await request.body(), session, limit]
        return {"key": key, "query": query, "agent": agent, "found": found}

    @app.get("/model-of-path/{shop}/{shelf}")  # noqa: FAST003 - the fields of the model
    async def model_of_path(place: Annotated[Place, Path()]) -> Place:
        return place

    @app.get("/response")
    async def own_response() -> Response:
        return PlainTextResponse("mine", 202, headers={"x-own": "1"})

    @app.get("/class", response_class=PlainTextResponse)
    async def other_class() -> str:
        return "text"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        return StreamingResponse(parts())

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> Item:
        tasks.add_task(closed.append, "task")
        return ITEM

    @app.get("/dependency")
    async def dependency(found: Annotated[str, Depends(resource)]) -> Item:
        return Item(name=found)

    @app.get("/written")
    async def written(response: Response) -> Item:
        response.headers["x-written"] = "yes"
        response.status_code = 203
        return ITEM

    @app.get("/threaded")
    def threaded() -> Item:
        return ITEM

    @app.post("/body")
    async def body(item: Annotated[Item, Body()]) -> Item:
        return item

    @app.get("/refused")
    async def refused() -> Item:
        raise HTTPException(409, "not now", headers={"x-why": "busy"})

    @app.get("/handled")
    async def handled() -> Item:
        raise LookupError("no such item")

    @app.get("/broken")
    async def broken() -> Item:
        raise RuntimeError("it broke")

    @app.get("/envelope")
    async def envelope() -> ApiResponse[Item]:
        return success_response(SecretItem(name="lamp"))

    @app.get("/envelope/made")
    async def envelope_made() -> ApiResponse[Item]:
        return ApiResponse[Item](data=SecretItem(name="lamp"), meta=META)

    @app.get("/envelope/null")
    async def envelope_null() -> ApiResponse[Item]:
        return ApiResponse(data=None, meta=META)

    @app.get("/envelope/dict")
    async def envelope_dict() -> ApiResponse[Item]:
        return ApiResponse(data={"name": "lamp", "more": 1}, meta=META)

    @app.get("/envelope/wrong")
    async def envelope_wrong() -> ApiResponse[Item]:
        return ApiResponse(data={"nothing": 1}, meta=META)

    @app.get("/envelope/error")
    async def envelope_error() -> ApiResponse[Item]:
        return ApiResponse(error=ErrorDetail(code="X", message="x"), meta=META)

    @app.get("/envelope/page")
    async def envelope_page() -> ApiResponse[list[Item]]:
        page = Pagination.create(1, 2, 3)
        return ApiResponse(data=[ITEM], meta=META, pagination=page, links=LINKS)

    @app.get("/envelope/any")
    async def envelope_any() -> ApiResponse[Any]:
        return success_response(SecretItem(name="lamp"), links=LINKS)

    @app.get("/envelope/plain", response_model=ApiResponse)
    async def envelope_plain() -> Any:
        return success_response({"a": Decimal("1.5"), "b": UUID(int=1)})

    @app.get("/envelope/from-dict", response_model=ApiResponse[Item])
    async def envelope_from_dict() -> Any:
        return {"data": {"name": "lamp"}, "meta": META}

    @router.get("/items/{number}")
    async def included(tenant: str, number: int) -> ApiResponse[Item]:
        return ApiResponse(data=Item(name=f"{tenant} {number}"), meta=META)

    outer = APIRouter(prefix="/outer", dependencies=[Depends(resource)])
    outer.include_router(router)
    app.include_router(outer)
    app.include_router(router, prefix="/v1")

    mounted = FastAPI()

    @mounted.get("/items/{number}")
    async def inner(number: int) -> Item:
        return Item(name=str(number))

    make = getattr(app.state, "make", None)
    if make:
        make(mounted.routes)
    app.mount("/mounted/{shop}", mounted)

    @app.exception_handler(LookupError)
    async def not_found(request: Request, error: Exception) -> Response:
        return PlainTextResponse(f"{request.url.path}: {error}", 404)


@cache
def application(*, direct: bool) -> FastAPI:
    app = FastAPI()
    app.state.make = make_direct if direct else None
    build(app)
    if direct:
        make_direct(app.routes)
        make_direct(app.routes)  # a second call does nothing
    return app


async def ask(app: FastAPI, method: str, path: str) -> tuple[object, ...]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        closed.clear()
        json = {"name": "sent"} if method == "POST" else None
        headers = {"x-agent": "me", "cookie": "session=s"}
        trace = TraceContext("a" * 32, "b" * 16)
        with bind(Context("req_2", "corr", trace)):
            answer = await client.request(method, path, json=json, headers=headers)
        text = re.sub(r'"timestamp":"[^"]+Z"', '"timestamp":""', answer.text)
        length = int(answer.headers.get("content-length", -1))
        assert length in {-1, len(answer.content)}
        answer.headers.pop("content-length", None)  # fractions of a second end in zeros or not
        return answer.status_code, sorted(answer.headers.multi_items()), text, tuple(closed)


FIXED = sorted(re.findall(r'@app\.get\("(/[^"{]+)"', inspect.getsource(build)))
PATHS = [
    *(("GET", path) for path in FIXED),
    ("GET", "/model/7"),
    ("GET", "/model/seven"),
    ("POST", "/model/7"),
    ("POST", "/body"),
    ("GET", f"/parameters/{UUID(int=7)}?query=1&query=2"),
    ("GET", f"/parameters/{UUID(int=7)}?query=1&limit=10"),
    ("GET", "/parameters/none?query=x"),
    ("GET", "/model-of-path/here/3"),
    ("GET", "/model-of-path/here/there"),
    ("GET", "/outer/in/shop/items/3"),
    ("GET", "/v1/in/shop/items/3"),
    ("GET", "/v1/in/shop/items/x"),
    ("DELETE", "/v1/in/shop/items/3"),
    ("GET", "/mounted/shop/items/3"),
    ("GET", "/missing"),
    ("GET", "/model/7/"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_a_direct_route_answers_as_fastapi_s_own(method: str, path: str) -> None:
    expected = await ask(application(direct=False), method, path)
    assert await ask(application(direct=True), method, path) == expected


def test_the_document_stays_the_same() -> None:
    assert application(direct=True).openapi() == application(direct=False).openapi()


async def test_a_plain_route_passes_by_what_fastapi_prepares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(**_: object) -> None:
        raise AssertionError("the long way")

    monkeypatch.setattr("fastapi.routing.solve_dependencies", never)
    app = application(direct=True)
    for path in ("/model/7", "/envelope", "/envelope/page", "/v1/in/shop/items/3"):
        status, *_ = await ask(app, "GET", path)
        assert status == 200, path


def test_a_route_of_a_class_of_its_own_stays_what_it_is() -> None:
    class Own(APIRoute):
        pass

    router = APIRouter(route_class=Own)
    router.add_api_route("/own", lambda: None)
    make_direct(router.routes)
    assert type(router.routes[0]) is Own


def test_a_router_may_ask_for_direct_routes_itself() -> None:
    router = APIRouter(route_class=DirectRoute)
    router.add_api_route("/own", lambda: None)
    assert type(router.routes[0]) is DirectRoute


async def test_a_path_with_a_parameter_of_a_kind_needs_no_match_for_its_own_template() -> None:
    app = FastAPI()

    @app.get("/items/{number:int}")
    async def read(number: int) -> ApiResponse[int]:
        return success_response(number)

    install_edge(app, ApiSettings(), service="test", registry=CollectorRegistry())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/items/7")).json()["data"] == 7
        assert (await client.get("/items/seven")).status_code == 404
