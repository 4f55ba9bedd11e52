from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI

from shared.api import (
    ClientIpDep,
    CorrelationIdDep,
    PaginationDep,
    PaginationParams,
    RequestContextDep,
    RequestIdDep,
)


def ids_app() -> FastAPI:
    app = FastAPI()

    @app.get("/ids")
    async def ids(
        request_id: RequestIdDep,
        correlation_id: CorrelationIdDep,
        context: RequestContextDep,
        client: ClientIpDep,
    ) -> Any:
        return {
            "dependencies": [request_id, correlation_id],
            "context": [context.request_id, context.correlation_id],
            "asked": [context.method, context.path, client],
            "trace_id": context.trace_id,
        }

    @app.get("/page")
    async def page(paging: PaginationDep) -> Any:
        return [paging.page, paging.limit, paging.offset]

    return app


@pytest.mark.parametrize("edge", [True, False])
async def test_all_dependencies_agree(make_app: Any, client: Any, edge: bool) -> None:
    app = make_app(ids_app()) if edge else ids_app()
    async with client(app) as http:
        sent = (
            await http.get("/ids", headers={"X-Request-ID": "r", "X-Correlation-ID": "c"})
        ).json()
        made = (await http.get("/ids", headers={"X-Request-ID": "r r"})).json()
    assert sent["dependencies"] == sent["context"] == ["r", "c"]
    assert sent["asked"] == ["GET", "/ids", "127.0.0.1"]
    assert len(sent["trace_id"]) == 32
    assert made["dependencies"] == made["context"]
    assert made["context"][0].startswith("req_")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [1, 50, 0]),
        ("?page=3&limit=1000", [3, 1000, 2000]),
        ("?page=0", None),
        ("?limit=0", None),
        ("?limit=1001", None),
        ("?page=x", None),
    ],
)
async def test_paging_is_bounded(make_app: Any, client: Any, query: str, expected: Any) -> None:
    async with client(make_app(ids_app())) as http:
        answer = await http.get(f"/page{query}")
    if expected is None:
        assert answer.json()["error"]["code"] == "VALIDATION_ERROR"
    else:
        assert answer.json() == expected


def test_the_defaults() -> None:
    assert PaginationParams().offset == 0
