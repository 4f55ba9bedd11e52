from __future__ import annotations

import logging
from typing import Annotated, Any
from uuid import uuid4

import pytest
from fastapi import Body, FastAPI, HTTPException, Query, Response
from pydantic import BaseModel, SecretStr, field_validator
from starlette.exceptions import HTTPException as StarletteHTTPException

from shared.api import install_exception_handlers, setup_middleware
from shared.errors import (
    ConflictError,
    InternalError,
    NotFoundError,
    RateLimitedError,
    ServiceUnavailableError,
    UnauthorizedError,
)


class Login(BaseModel):
    user: str
    password: SecretStr
    pin: int

    @field_validator("user")
    @classmethod
    def _short(cls, user: str) -> str:
        if len(user) > 10:
            raise ValueError("at most 10 characters")
        return user


class Order(BaseModel):
    lines: list[Login]


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI(exception_handlers={})
    setup_middleware(app, service_name="shop-service", enable_metrics=False)

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        errors: dict[str, Exception] = {
            "missing": NotFoundError("No such order", resource="order", resource_id=uuid4()),
            "limited": RateLimitedError(retry_after=1.2),
            "limited-unknown": RateLimitedError(),
            "unavailable": ServiceUnavailableError("later", retry_after=30),
            "conflict-wait": ConflictError("no", retry_after=30),
            "unauthorized": UnauthorizedError(),
            "basic": UnauthorizedError(auth_type="Basic"),
            "injected": UnauthorizedError(auth_type="Basic\r\nX-Evil: 1"),
            "internal": InternalError(),
            "teapot": HTTPException(418, "short and stout", headers={"X-Pot": "yes"}),
            "dict": HTTPException(400, {"id": uuid4()}),
            "list": HTTPException(400, ["a"]),
            "bare": StarletteHTTPException(415),
            "odd": HTTPException(599),
            "no-content": HTTPException(304),
            "surrogate": NotFoundError("no \ud800", resource="\ud800"),
            "surrogate-detail": HTTPException(404, "no \ud800"),
        }
        raise errors[name]

    @app.post("/orders")
    async def order(order: Order, page: Annotated[int, Query(ge=1)]) -> int:
        return page + len(order.lines)

    @app.post("/numbers")
    async def numbers(numbers: Annotated[list[int], Body()]) -> int:
        return len(numbers)

    return app


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "HTTP_404"),
        ("PUT", "/orders", 405, "HTTP_405"),
        ("GET", "/raise/teapot", 418, "HTTP_418"),
        ("GET", "/raise/bare", 415, "HTTP_415"),
        ("GET", "/raise/odd", 599, "HTTP_599"),
        ("GET", "/raise/dict", 400, "HTTP_400"),
        ("GET", "/raise/list", 400, "HTTP_400"),
        ("GET", "/raise/missing", 404, "NOT_FOUND"),
        ("GET", "/raise/internal", 500, "INTERNAL_ERROR"),
        ("GET", "/raise/surrogate", 404, "NOT_FOUND"),
        ("GET", "/raise/surrogate-detail", 404, "HTTP_404"),
        ("POST", "/orders", 422, "VALIDATION_ERROR"),
        ("GET", "/raise/unknown", 500, "INTERNAL_ERROR"),
    ],
)
async def test_every_error_is_an_envelope(
    app: FastAPI, client: Any, method: str, path: str, status: int, code: str
) -> None:
    async with client(app) as http:
        answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error", "meta"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    assert body["meta"]["request_id"] == answer.headers["X-Request-ID"]
    assert body["meta"]["correlation_id"] == answer.headers["X-Correlation-ID"]
    assert None not in body["error"].values()


async def test_headers_of_framework_errors_stay(app: FastAPI, client: Any) -> None:
    async with client(app) as http:
        assert (await http.put("/orders")).headers["Allow"] == "POST"
        assert (await http.get("/raise/teapot")).headers["X-Pot"] == "yes"
        assert (await http.get("/raise/no-content")).content == b""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("limited", "2"),
        ("limited-unknown", None),
        ("unavailable", "30"),
        ("conflict-wait", "30"),
    ],
)
async def test_retry_after_is_sent_when_known(
    app: FastAPI, client: Any, name: str, expected: str | None
) -> None:
    async with client(app) as http:
        assert (await http.get(f"/raise/{name}")).headers.get("Retry-After") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("unauthorized", "Bearer"), ("basic", "Basic"), ("injected", "Bearer")],
)
async def test_a_401_names_a_way_to_authenticate(
    app: FastAPI, client: Any, name: str, expected: str
) -> None:
    async with client(app) as http:
        assert (await http.get(f"/raise/{name}")).headers["WWW-Authenticate"] == expected


async def test_validation_errors_say_where_and_what_but_not_what_was_sent(
    app: FastAPI, client: Any
) -> None:
    body = {"lines": [{"user": "x" * 11, "password": ["hunter2"], "pin": "hunter3"}]}
    async with client(app) as http:
        answer = await http.post("/orders?page=0", json=body)
    assert answer.json()["error"]["details"] == {
        "validation_errors": [
            {
                "field": "query.page",
                "message": "Input should be greater than or equal to 1",
                "type": "greater_than_equal",
            },
            {
                "field": "body.lines.0.user",
                "message": "Value error, at most 10 characters",
                "type": "value_error",
            },
            {
                "field": "body.lines.0.password",
                "message": "Input should be a valid string",
                "type": "string_type",
            },
            {
                "field": "body.lines.0.pin",
                "message": (
                    "Input should be a valid integer, unable to parse string as an integer"
                ),
                "type": "int_parsing",
            },
        ]
    }
    assert "hunter" not in answer.text


async def test_broken_json_is_told_by_its_place(app: FastAPI, client: Any) -> None:
    headers = {"Content-Type": "application/json"}
    async with client(app) as http:
        answer = await http.post("/numbers", content=b"[1, 2", headers=headers)
    assert answer.json()["error"]["details"]["validation_errors"] == [
        {
            "field": "body",
            "message": "JSON decode error at character 5: Expecting ',' delimiter",
            "type": "json_invalid",
        }
    ]


async def test_many_mistakes_make_no_larger_answer(app: FastAPI, client: Any) -> None:
    async with client(app) as http:
        answer = await http.post("/numbers", json=["x"] * 5000)
    assert len(answer.json()["error"]["details"]["validation_errors"]) == 100


async def test_an_intended_server_error_is_in_the_log_with_its_stack(
    app: FastAPI, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with client(app) as http:
        await http.get("/raise/unavailable")
        await http.get("/raise/missing")
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.exc_info is not None


@pytest.mark.parametrize(
    ("accept", "problem"),
    [
        ("application/problem+json", True),
        ("application/problem+json, application/json", True),
        ("application/json, application/problem+json", False),
        ("application/json;q=0.5, application/problem+json", True),
        ("application/json, application/problem+json;q=0.9", False),
        ("application/problem+json; q=0", False),
        ("application/problem+json; q=high", False),
        ("*/*", False),
        ("APPLICATION/PROBLEM+JSON; charset=utf-8", True),
        ("", False),
    ],
)
async def test_a_problem_document_for_those_who_prefer_it(
    app: FastAPI, client: Any, accept: str, problem: bool
) -> None:
    async with client(app) as http:
        answer = await http.get("/raise/missing", headers={"Accept": accept})
    kind = "application/problem+json" if problem else "application/json"
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Vary"] == "Accept"
    if problem:
        body = answer.json()
        assert body["meta"]["request_id"] == answer.headers["X-Request-ID"]
        assert {k: body[k] for k in ("type", "title", "status", "detail", "instance", "code")} == {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "No such order",
            "instance": "/raise/missing",
            "code": "NOT_FOUND",
        }


async def test_a_handler_of_the_applications_own_stays(client: Any) -> None:
    async def own(request: Any, error: Any) -> Response:
        del request, error
        return Response("own", 404)

    app = FastAPI(exception_handlers={StarletteHTTPException: own})
    install_exception_handlers(app)
    async with client(app) as http:
        assert (await http.get("/nothing")).text == "own"


async def test_handlers_work_without_an_edge(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    install_exception_handlers(app)
    install_exception_handlers(app)

    @app.get("/")
    async def fail() -> None:
        raise RuntimeError("hunter2")

    async with client(app) as http:
        answer = await http.get("/")
    error_id = answer.json()["error"]["details"]["error_id"]
    assert [vars(r)["error_id"] for r in caplog.records if r.levelno >= logging.ERROR] == [error_id]
    assert answer.json()["meta"]["request_id"].startswith("req_")
