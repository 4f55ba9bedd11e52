from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from shared.api import (
    ApiResponse,
    Links,
    PaginationDep,
    create_response,
    error_response,
    paginated_response,
    success_response,
)
from shared.context import Context, bind


class Item(BaseModel):
    name: str
    note: str | None = None


def test_ids_are_those_given_by_position_or_keyword() -> None:
    assert success_response(1, "r", "c").meta.model_dump(
        include={"request_id", "correlation_id"}
    ) == {
        "request_id": "r",
        "correlation_id": "c",
    }
    response = success_response(data=1, request_id="r", links=Links(self="/here"))
    assert response.model_dump()["links"] == {"self": "/here"}
    assert create_response(request_id="r").meta.request_id == "r"


def test_ids_not_given_are_those_of_the_request_in_hand() -> None:
    with bind(Context.start(request_id="r-1", correlation_id="c-1")):
        meta = error_response("CODE", "message", {"a": 1}).meta
    assert (meta.request_id, meta.correlation_id) == ("r-1", "c-1")
    assert success_response(1).meta.request_id.startswith("req_")
    assert "correlation_id" not in success_response(1).meta.model_dump()


def test_a_page_knows_its_place() -> None:
    page = paginated_response([1, 2], 2, 2, 5, "/orders", status="open", tag=["a", "b"])
    assert page.model_dump(exclude={"meta"}) == {
        "data": [1, 2],
        "pagination": {
            "page": 2,
            "limit": 2,
            "total": 5,
            "pages": 3,
            "has_next": True,
            "has_previous": True,
        },
        "links": {
            "self": "/orders?page=2&limit=2&status=open&tag=a&tag=b",
            "next": "/orders?page=3&limit=2&status=open&tag=a&tag=b",
            "previous": "/orders?page=1&limit=2&status=open&tag=a&tag=b",
            "first": "/orders?page=1&limit=2&status=open&tag=a&tag=b",
            "last": "/orders?page=3&limit=2&status=open&tag=a&tag=b",
        },
    }


async def test_envelopes_pass_through_an_endpoints_response_model(client: Any) -> None:
    app = FastAPI()

    @app.get("/item", response_model=ApiResponse[Item])
    async def item() -> Any:
        return success_response(Item(name="a"))

    @app.get("/error")
    async def error() -> ApiResponse[Item]:
        return error_response("GONE", "gone")  # type: ignore[return-value]

    @app.get("/items")
    async def items(paging: PaginationDep) -> ApiResponse[list[Item]]:
        return paginated_response([], paging.page, paging.limit, 0, "/items")

    async with client(app) as http:
        found = (await http.get("/item")).json()
        assert found.keys() == {"data", "meta"}
        assert found["data"] == {"name": "a", "note": None}
        assert (await http.get("/error")).json().keys() == {"error", "meta"}
        listed = (await http.get("/items?limit=10")).json()
        assert listed["links"]["last"] == "/items?page=1&limit=10"
        assert (await http.get("/items?limit=1001")).status_code == 422
