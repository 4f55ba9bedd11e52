from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel

from shared.api import ApiResponse, error_responses, install_exception_handlers
from shared.errors import ConflictError, NotFoundError, SyncInProgressError


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
    assert set(responses) == {"200", "404", "409", "415", "422", "default"}
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
    assert not {"HTTPValidationError", "ValidationError"} & set(schemas)


def test_the_envelope_keeps_its_schema() -> None:
    schema = ApiResponse[int].model_json_schema(mode="serialization")
    assert set(schema["properties"]) == {"data", "error", "meta", "pagination", "links"}
