"""The errors of an API in its OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from shared.api.error_answers import PROBLEM_JSON, phrase
from shared.api.models import ErrorResponse
from shared.errors import GlamBaseError, ValidationError

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["error_responses"]

_COMPONENT = "ErrorEnvelope"


def error_responses(*errors: type[GlamBaseError] | int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors a route answers with, for its ``responses=``.

        @router.get("/orders/{id}", responses=error_responses(NotFoundError, RateLimitedError))

    Args:
        *errors: error classes, or statuses of the framework's own errors. Several of the same
            status share one response, with an example each.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for error in errors:
        status, code, message = _facts(error)
        response = responses.setdefault(
            status,
            {
                "model": ErrorResponse,
                "description": phrase(status),
                "content": {"application/json": {"examples": {}}},
            },
        )
        response["content"]["application/json"]["examples"][code] = {
            "value": {
                "error": {"code": code, "message": message},
                "meta": {
                    "request_id": "req_0123456789ab",
                    "timestamp": "2026-01-01T00:00:00Z",
                },
            }
        }
    return responses


def _facts(error: type[GlamBaseError] | int) -> tuple[int, str, str]:
    if isinstance(error, int):
        return error, f"HTTP_{error}", phrase(error)
    return error.status, error.code, getattr(error, "message", phrase(error.status))


def document_errors(app: FastAPI) -> None:
    """Show in the OpenAPI document what the exception handlers answer.

    Each operation gets a ``default`` response, and its 422 the envelope in place of FastAPI's own
    form. Responses a route documents itself stay. A second call changes nothing.
    """
    generate = app.openapi
    done: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal done
        document = generate()  # FastAPI keeps it until the routes change
        if document is not done:
            _document(document)
            done = document
        return document

    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's own guide extends it


def _document(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.setdefault(_COMPONENT, _error_schema())
    for path in document.get("paths", {}).values():
        for operation in path.values():
            responses = operation.get("responses")
            if responses is None:
                continue
            own = responses.get("422", {}).get("content", {}).get("application/json", {})
            if own.get("schema", {}).get("$ref", "").endswith("/HTTPValidationError"):
                responses["422"] = _response(f"{phrase(422)} ({ValidationError.code})")
            responses.setdefault("default", _response("Any other error"))
    for name in ("HTTPValidationError", "ValidationError"):  # in this order: one uses the other
        if f'"#/components/schemas/{name}"'.encode() not in to_json(document):
            schemas.pop(name, None)


def _error_schema() -> dict[str, Any]:
    """Make a schema that stands alone, so that no model of a service can take one of its names."""
    schema = ErrorResponse.model_json_schema(mode="serialization")
    parts = schema.pop("$defs")
    schema["properties"] = {
        name: parts[value["$ref"].rpartition("/")[2]]
        for name, value in schema["properties"].items()
    }
    return {**schema, "title": _COMPONENT}


def _response(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {
            "application/json": {"schema": {"$ref": f"#/components/schemas/{_COMPONENT}"}},
            PROBLEM_JSON: {"schema": {"type": "object"}},
        },
    }
