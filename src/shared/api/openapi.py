"""The errors of an API in its OpenAPI document.

Each operation shows the errors it can answer with, each with its code, in both forms: the envelope
and the problem document. They are gathered from the route itself, from what its endpoint and its
dependencies say they raise, and from what the chassis answers by itself. The document's
``x-error-codes`` is the catalogue of all codes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from fastapi.routing import APIRoute, iter_route_contexts
from pydantic_core import to_json

from shared.api.error_answers import PROBLEM_JSON, phrase
from shared.api.models import ErrorResponse
from shared.errors import (
    GlamBaseError,
    InternalError,
    RateLimitedError,
    RequestTimeoutError,
    ServiceUnavailableError,
    ValidationError,
    catalogue,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fastapi import FastAPI
    from fastapi.dependencies.models import Dependant


F = TypeVar("F", bound=Callable[..., Any])

_ENVELOPE = "ErrorEnvelope"
_PROBLEM = "ProblemDocument"
_CODES = "x-error-codes"
_RAISED = "raised_errors"

_SHADOWED = re.compile(r"(HTTP)?ValidationError|(shared__api__models__)?Error(Response|Detail)")
"""Schemas of FastAPI and of `error_responses` that nothing refers to in the end."""

_HEADERS = {
    "Retry-After": "Seconds to wait before the request is sent again, where that is known.",
    "RateLimit": "What is left of each limit (draft-ietf-httpapi-ratelimit-headers).",
    "RateLimit-Policy": "The limits that hold (draft-ietf-httpapi-ratelimit-headers).",
    "WWW-Authenticate": "How to authenticate (RFC 9110, section 11.6.1).",
}
_HEADERS_OF = {
    401: ("WWW-Authenticate",),
    409: ("Retry-After",),
    429: ("Retry-After", "RateLimit", "RateLimit-Policy"),
    503: ("Retry-After",),
}
_EXAMPLE_META = {"request_id": "req_0123456789ab", "timestamp": "2026-01-01T00:00:00Z"}


@dataclass(frozen=True, slots=True)
class _Answer:
    """One error as a caller sees it."""

    status: int
    code: str
    message: str

    @classmethod
    def of(cls, error: type[GlamBaseError] | int) -> Self:
        if isinstance(error, int):
            return cls(error, f"HTTP_{error}", phrase(error))
        return cls(error.status, error.code, getattr(error, "message", phrase(error.status)))

    @property
    def name(self) -> str:
        """The code as the name of a component."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", self.code)

    @property
    def envelope(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message}, "meta": _EXAMPLE_META}

    @property
    def problem(self) -> dict[str, Any]:
        return {
            "type": "about:blank",
            "title": phrase(self.status),
            "status": self.status,
            "detail": self.message,
            "instance": "/",
            "code": self.code,
            "meta": _EXAMPLE_META,
        }


_ANYWHERE = tuple(
    _Answer.of(error) for error in (404, 405, ServiceUnavailableError, RequestTimeoutError)
)
_WITH_A_BODY = (_Answer.of(400), _Answer.of(413))


def raises(*errors: type[GlamBaseError]) -> Callable[[F], F]:
    """Say what an endpoint or a dependency raises, so that OpenAPI shows it.

    >>> @app.get("/invoices/{number}")
    ... @raises(NotFoundError, ConflictError)
    ... async def read(number: str) -> str: ...
    >>> sorted(app.openapi()["paths"]["/invoices/{number}"]["get"]["responses"])
    ['200', '404', '409', '422', '500', 'default']

    Said of a dependency, it is shown at every operation that has it. It changes nothing of what is
    raised, or answered.

    Args:
        *errors: error classes; those of the same status share one response, with an example each.
    """

    def say(function: F) -> F:
        setattr(function, _RAISED, (*getattr(function, _RAISED, ()), *errors))
        return function

    return say


def error_responses(*errors: type[GlamBaseError] | int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors a route answers with, for its ``responses=``.

        @router.get("/orders/{id}", responses=error_responses(NotFoundError, RateLimitedError))

    Args:
        *errors: error classes, or statuses of the framework's own errors. Several of the same
            status share one response, with an example each.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for answer in map(_Answer.of, errors):
        response = responses.setdefault(
            answer.status,
            {
                "model": ErrorResponse,
                "description": phrase(answer.status),
                "content": {"application/json": {"examples": {}}},
                _CODES: [],
            },
        )
        if answer.code not in response[_CODES]:
            response[_CODES].append(answer.code)
            examples = response["content"]["application/json"]["examples"]
            examples[answer.code] = {"value": answer.envelope}
    return responses


def document_errors(app: FastAPI) -> None:
    """Show in the OpenAPI document what the exception handlers answer.

    Responses that a route documents by hand stay. A second call changes nothing.
    """
    if getattr(app.openapi, "documents_errors", False):
        return
    generate = app.openapi
    done: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal done
        document = generate()  # FastAPI keeps it until the routes change
        if document is not done:
            _Document(app, document).complete()
            done = document
        return document

    openapi.documents_errors = True  # type: ignore[attr-defined] # a mark of our own
    app.openapi = openapi  # type: ignore[method-assign] # as FastAPI's own guide extends it


class _Document:
    """The OpenAPI document of one application, to be completed in place."""

    def __init__(self, app: FastAPI, document: dict[str, Any]) -> None:
        self.app = app
        self.document = document
        self.components: dict[str, Any] = document.setdefault("components", {})
        self.schemas: dict[str, Any] = self.components.setdefault("schemas", {})

    def complete(self) -> None:
        self.document[_CODES] = _all_codes()
        self.schemas[_ENVELOPE] = _envelope_schema()
        self.schemas[_PROBLEM] = _problem_schema()
        raised = self._raised()
        for path, operations in self.document.get("paths", {}).items():
            for method, operation in operations.items():
                if "responses" in operation:
                    self._operation(operation, raised.get((path, method), ()))
        for name in [name for name in self.schemas if _SHADOWED.fullmatch(name)]:
            others = {**self.document, "components": {**self.components}}
            others["components"]["schemas"] = {**self.schemas, name: None}
            if f'"#/components/schemas/{name}"'.encode() not in to_json(others):
                del self.schemas[name]

    def _raised(self) -> dict[tuple[str, str], tuple[_Answer, ...]]:
        """Find what each operation's endpoint and dependencies say they raise."""
        found = {}
        limiter = getattr(self.app.state, "rate_limits", None)
        for route in iter_route_contexts(self.app.routes):
            if not isinstance(route.original_route, APIRoute) or not route.path_format:
                continue
            errors = list(_raised_by(route.dependant))
            if limiter is not None and limiter.guards(route.path_format):
                errors.append(RateLimitedError)
            answers = tuple(dict.fromkeys(map(_Answer.of, errors)))
            for method in route.methods or ():
                found[route.path_format, method.lower()] = answers
        return found

    def _operation(self, operation: dict[str, Any], raised: Iterable[_Answer]) -> None:
        responses: dict[str, Any] = operation["responses"]
        answers = [answer for status, one in responses.items() for answer in _declared(status, one)]
        answers += raised
        if _is_fastapis(responses.get("422", {})):
            del responses["422"]
            answers.append(_Answer.of(ValidationError))
        if "requestBody" in operation:
            answers += _WITH_A_BODY
        answers.append(_Answer.of(InternalError))
        by_status: dict[int, dict[str, _Answer]] = {}
        for answer in answers:
            by_status.setdefault(answer.status, {}).setdefault(answer.code, answer)
        for status, of_status in sorted(by_status.items()):
            present = responses.get(str(status))
            if present is None or _CODES in present:
                description = (present or {}).get("description") or phrase(status)
                responses[str(status)] = self._response(
                    description, tuple(of_status.values()), _HEADERS_OF.get(status, ())
                )
        if "default" not in responses:
            responses["default"] = self._response("Any other error", _ANYWHERE, ("Retry-After",))
        operation["responses"] = dict(sorted(responses.items()))

    def _response(
        self, description: str, answers: tuple[_Answer, ...], headers: tuple[str, ...]
    ) -> dict[str, Any]:
        examples = self.components.setdefault("examples", {})
        for answer in answers:
            summary = {"summary": f"{answer.status} {answer.code}"}
            examples[answer.name] = {**summary, "value": answer.envelope}
            examples[f"{answer.name}.problem"] = {**summary, "value": answer.problem}
        shown = self.components.setdefault("headers", {}) if headers else {}
        for name in headers:
            shown[name] = {"description": _HEADERS[name], "schema": {"type": "string"}}

        def content(schema: str, suffix: str) -> dict[str, Any]:
            return {
                "schema": {"$ref": f"#/components/schemas/{schema}"},
                "examples": {
                    answer.code: {"$ref": f"#/components/examples/{answer.name}{suffix}"}
                    for answer in answers
                },
            }

        return {
            "description": description,
            **(
                {"headers": {name: {"$ref": f"#/components/headers/{name}"} for name in headers}}
                if headers
                else {}
            ),
            "content": {
                "application/json": content(_ENVELOPE, ""),
                PROBLEM_JSON: content(_PROBLEM, ".problem"),
            },
            _CODES: [answer.code for answer in answers],
        }


def _raised_by(dependant: Dependant) -> Iterator[type[GlamBaseError]]:
    yield from getattr(dependant.call, _RAISED, ())
    for dependency in dependant.dependencies:
        yield from _raised_by(dependency)


def _declared(status: str, response: dict[str, Any]) -> Iterator[_Answer]:
    """Read back what `error_responses` wrote."""
    examples = response.get("content", {}).get("application/json", {}).get("examples", {})
    for code in response.get(_CODES, ()):
        error = examples[code]["value"]["error"]
        yield _Answer(int(status), error["code"], error["message"])


def _is_fastapis(response: dict[str, Any]) -> bool:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).endswith("/HTTPValidationError")


def _all_codes() -> dict[str, Any]:
    """List the codes of the catalogue: status, meaning, the keys of the details."""
    return {
        entry.code: {
            "status": entry.status,
            "description": entry.summary,
            "details": list(entry.details),
        }
        for entry in sorted(catalogue(), key=lambda entry: (entry.code, -entry.depth))
    }


def _envelope_schema() -> dict[str, Any]:
    """Make a schema that stands alone, so that no model of a service can take one of its names."""
    schema = ErrorResponse.model_json_schema(mode="serialization")
    parts = schema.pop("$defs")
    schema["properties"] = {
        name: parts[value["$ref"].rpartition("/")[2]]
        for name, value in schema["properties"].items()
    }
    schema["properties"]["error"]["properties"]["code"] |= _code_schema()
    return {**schema, "title": _ENVELOPE}


def _problem_schema() -> dict[str, Any]:
    """Make the schema of RFC 9457, section 3.1, with the members that are ours (section 3.2)."""
    parts = ErrorResponse.model_json_schema(mode="serialization")["$defs"]
    return {
        "title": _PROBLEM,
        "description": "The error as RFC 9457 has it, for whom prefers it in `Accept`.",
        "type": "object",
        "properties": {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "instance": {"type": "string", "format": "uri-reference"},
            "code": {"type": "string", **_code_schema()},
            "details": {"type": "object", "additionalProperties": True},
            "meta": parts["Meta"],
        },
        "required": ["type", "title", "status", "detail", "instance", "code", "meta"],
    }


def _code_schema() -> dict[str, Any]:
    codes = sorted({entry.code for entry in catalogue()})
    return {
        "description": "What went wrong, for programs; `HTTP_<status>` for the framework's errors. "
        f"`{_CODES}` of this document tells of each.",
        "x-extensible-enum": codes,
    }
