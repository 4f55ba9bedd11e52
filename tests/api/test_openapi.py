from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel

from shared.api import (
    ApiResponse,
    RateLimit,
    error_responses,
    install_exception_handlers,
    install_rate_limits,
    only_services,
    raises,
)
from shared.config import RateLimitSettings, ServiceSettings
from shared.errors import ConflictError, NotFoundError, SyncInProgressError, catalogue


class Order(BaseModel):
    order_id: int


def document() -> dict[str, object]:
    app = FastAPI()
    install_exception_handlers(app)
    install_exception_handlers(app)

    @app.get(
        "/orders/{order_id}",
        responses=error_responses(NotFoundError, ConflictError, SyncInProgressError, 415),
    )
    async def order(order_id: int) -> ApiResponse[Order]:
        raise NotImplementedError

    assert app.openapi() is app.openapi()
    return app.openapi()


def test_the_errors_of_a_route_are_documented() -> None:
    responses = document()["paths"]["/orders/{order_id}"]["get"]["responses"]  # type: ignore[index]
    assert list(responses) == ["200", "404", "409", "415", "422", "500", "default"]
    examples = responses["409"]["content"]["application/json"]["examples"]
    assert set(examples) == {"CONFLICT", SyncInProgressError.code}
    for status in ("422", "default"):
        schema = responses[status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorEnvelope"}
        assert "application/problem+json" in responses[status]["content"]


def test_the_document_holds_what_it_refers_to_and_nothing_of_fastapis() -> None:
    schemas = document()["components"]["schemas"]  # type: ignore[index]
    assert set(schemas["ErrorEnvelope"]["properties"]) == {"error", "meta"}
    assert "$ref" not in str(schemas["ErrorEnvelope"])
    assert "$ref" not in str(schemas["ProblemDocument"])
    assert not {"HTTPValidationError", "ValidationError", "ErrorResponse"} & set(schemas)


def test_the_envelope_keeps_its_schema() -> None:
    schema = ApiResponse[int].model_json_schema(mode="serialization")
    assert set(schema["properties"]) == {"data", "error", "meta", "pagination", "links"}


def operation(app: FastAPI, path: str = "/orders/{order_id}") -> dict[str, Any]:
    (found,) = app.openapi()["paths"][path].values()
    return {status: set(one.get("x-error-codes", ())) for status, one in found["responses"].items()}


def test_what_an_endpoint_and_its_dependencies_raise_is_shown() -> None:
    @raises(ConflictError)
    async def inner() -> None: ...

    @raises(SyncInProgressError)
    async def outer(_: None = Depends(inner)) -> None: ...

    router = APIRouter(dependencies=[Depends(only_services("webhook-service"))])

    @router.put("/orders/{order_id}", dependencies=[Depends(outer), Depends(RateLimit("1/day"))])
    @raises(NotFoundError)
    async def order(order_id: int, body: Order) -> ApiResponse[Order]:
        raise NotImplementedError

    app = FastAPI()
    install_exception_handlers(app)
    app.include_router(router)
    assert operation(app) == {
        "200": set(),
        "400": {"HTTP_400"},
        "401": {"UNAUTHORIZED"},
        "403": {"FORBIDDEN"},
        "404": {"NOT_FOUND"},
        "409": {"CONFLICT", "SYNC_IN_PROGRESS"},
        "413": {"HTTP_413"},
        "422": {"VALIDATION_ERROR"},
        "429": {"RATE_LIMITED"},
        "500": {"INTERNAL_ERROR"},
        "default": {"HTTP_404", "HTTP_405", "SERVICE_UNAVAILABLE", "TIMEOUT"},
    }


@pytest.mark.parametrize(("limits", "shown"), [({}, False), ({"client": ("5/minute",)}, True)])
def test_limits_of_the_settings_are_shown_where_they_hold(
    limits: dict[str, Any], shown: bool
) -> None:
    app = FastAPI()
    install_exception_handlers(app)
    settings = ServiceSettings(rate_limiting=RateLimitSettings(**limits))
    install_rate_limits(app, settings, service="shop-service")
    for path in ("/orders", "/api/v1/health"):
        app.add_api_route(path, lambda: None)
    assert ("429" in operation(app, "/orders")) is shown
    assert "429" not in operation(app, "/api/v1/health")


def test_a_response_described_by_hand_stays() -> None:
    app = FastAPI()
    install_exception_handlers(app)

    @app.get("/orders", responses={404: {"description": "Sold out"}, 500: {"description": "Oh"}})
    @raises(NotFoundError)
    async def orders() -> None: ...

    responses = app.openapi()["paths"]["/orders"]["get"]["responses"]
    assert responses["404"] == {"description": "Sold out"}
    assert responses["500"] == {"description": "Oh"}


def test_the_whole_catalogue_is_published() -> None:
    published = document()["x-error-codes"]
    assert set(published) == {entry.code for entry in catalogue()}  # type: ignore[call-overload]
    assert published["NOT_FOUND"] == {  # type: ignore[index]
        "status": 404,
        "description": "What was asked for does not exist, or not for this caller.",
        "details": ["resource", "resource_id"],
    }


def test_each_code_has_an_example_in_both_forms_that_the_schema_accepts() -> None:
    found = document()
    components: Any = found["components"]
    assert {"NOT_FOUND", "NOT_FOUND.problem"} <= set(components["examples"])
    for name, example in components["examples"].items():
        problem = name.endswith(".problem")
        schema = components["schemas"]["ProblemDocument" if problem else "ErrorEnvelope"]
        assert set(schema["required"]) <= set(example["value"]), name
    told = json.dumps(found)
    for reference in {part.split('"')[0] for part in told.split('"$ref": "#/components/')[1:]}:
        kind, name = reference.split("/")
        assert name in components[kind], reference
