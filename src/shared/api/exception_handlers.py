"""Every error of an application in one form."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi import exception_handlers as fastapi_handlers
from fastapi.exceptions import (
    RequestValidationError,
    ValidationException,
    WebSocketRequestValidationError,
)
from fastapi.routing import iter_route_contexts
from pydantic_core import PydanticSerializationError, from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketState

from shared.api.error_answers import answer_error, answer_unexpected, error_answer, phrase
from shared.api.openapi import document_errors
from shared.errors import GlamBaseError, ValidationError
from shared.errors.details import json_safe

if TYPE_CHECKING:
    from collections.abc import Sequence


_logger = logging.getLogger(__name__)

_NO_BODY = frozenset({204, 205, 304})
_METHOD_NOT_ALLOWED = 405
_SERVER_ERROR = 500
_MAX_VALIDATION_ERRORS = 100
_MAX_TEXT = 500

# Close codes of RFC 6455, section 7.4.1.
_POLICY_VIOLATION = 1008
_INTERNAL_ERROR = 1011

_FASTAPI_DEFAULTS = (
    fastapi_handlers.http_exception_handler,
    fastapi_handlers.request_validation_exception_handler,
    fastapi_handlers.websocket_request_validation_exception_handler,
)


def install_exception_handlers(app: FastAPI) -> None:
    """Make every error of ``app`` an envelope, or a problem document where the caller prefers one.

    Framework errors, validation errors, `GlamBaseError` and unexpected ones are covered. A handler
    the application brought itself stays. The OpenAPI document shows the errors too. A second call
    changes nothing.
    """
    for kind, handler in (
        (HTTPException, _http_exception),
        (RequestValidationError, _invalid),
        (WebSocketRequestValidationError, _invalid),
        (GlamBaseError, _glam_error),
        (PydanticSerializationError, _unwritable),
        (Exception, _unexpected),
    ):
        if app.exception_handlers.get(kind) in (None, *_FASTAPI_DEFAULTS):
            # Each takes both kinds of connection, which the union of types cannot say.
            app.add_exception_handler(kind, handler)  # type: ignore[arg-type]
    document_errors(app)


async def _http_exception(connection: Request | WebSocket, error: Exception) -> Response | None:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    status, detail = error.status_code, error.detail
    headers = dict(error.headers or {})
    if status == _METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(connection)) or headers.get("Allow", "")
    if status in _NO_BODY:
        return Response(status_code=status, headers=headers)
    if isinstance(detail, str):
        message, details = detail or phrase(status), None
    else:
        safe = json_safe(detail)
        message, details = phrase(status), safe if isinstance(safe, dict) else {"detail": safe}
    answer = error_answer(
        connection.scope,
        status=status,
        code=f"HTTP_{status}",
        message=message,
        details=details,
        headers=headers,
    )
    return await _deliver(connection, answer, f"HTTP_{status}")


def _methods_at(connection: Request | WebSocket) -> list[str]:
    """List all methods of the requested path (RFC 9110, section 15.5.6).

    The router names those of the first route that has the path, and one path may have several.
    """
    app = connection.scope.get("app")
    path = connection.scope["path"].removeprefix(connection.scope.get("root_path", ""))
    return sorted(
        {
            method
            for route in (iter_route_contexts(app.routes) if isinstance(app, FastAPI) else ())
            if route.methods and route.path_regex.match(path)
            for method in route.methods
        }
    )


async def _invalid(connection: Request | WebSocket, error: Exception) -> Response | None:
    assert isinstance(error, ValidationException)  # noqa: S101 - what it is registered for
    return await _deliver_invalid(connection, validation_errors(error.errors()))


async def _glam_error(connection: Request | WebSocket, error: Exception) -> Response | None:
    assert isinstance(error, GlamBaseError)  # noqa: S101 - what it is registered for
    if error.status >= _SERVER_ERROR:
        _logger.error("%s: %s", error.code, error.message, exc_info=error)
    return await _deliver(connection, answer_error(connection.scope, error), error.code)


async def _unwritable(connection: Request | WebSocket, error: Exception) -> Response | None:
    """Refuse a body that holds what cannot be written as JSON again, if that is what was wrong.

    The standard library reads arrays in arrays up to its stack's end, and half a surrogate pair;
    neither can be written again, to an answer or an event. To look is left until it matters.
    """
    body = getattr(connection, "_body", None)  # what the endpoint's request has read
    try:
        from_json(body or b"null")
    except ValueError as reason:
        mistake = {"field": "body", "message": str(reason), "type": "json_invalid"}
        return await _deliver_invalid(connection, [mistake])
    raise error


async def _unexpected(request: Request | WebSocket, error: Exception) -> Response:
    return answer_unexpected(request.scope, error)


async def _deliver_invalid(
    connection: Request | WebSocket, errors: list[dict[str, str]]
) -> Response | None:
    answer = error_answer(
        connection.scope,
        status=ValidationError.status,
        code=ValidationError.code,
        message="Request validation failed",
        details={"validation_errors": errors},
    )
    return await _deliver(connection, answer, ValidationError.code)


async def _deliver(connection: Request | WebSocket, answer: Response, code: str) -> Response | None:
    """Hand an answer back for HTTP; refuse or close a WebSocket with it."""
    if isinstance(connection, Request):
        return answer
    if connection.application_state is WebSocketState.CONNECTING:
        if "websocket.http.response" in connection.scope.get("extensions", {}):
            await connection.send_denial_response(answer)
        else:
            await connection.close()
    elif WebSocketState.DISCONNECTED not in (
        connection.application_state,
        connection.client_state,
    ):
        failed = answer.status_code >= _SERVER_ERROR
        await connection.close(_INTERNAL_ERROR if failed else _POLICY_VIOLATION, code)
    return None


def validation_errors(errors: Sequence[Any]) -> list[dict[str, str]]:
    """Tell where each error is and what it is, never what was sent there.

    At most 100 are listed: a body of many small mistakes must not make a larger answer.
    """
    return [
        {
            "field": _field(error),
            "message": _message(error),
            "type": str(error.get("type", "")),
        }
        for error in errors[:_MAX_VALIDATION_ERRORS]
    ]


def _field(error: dict[str, Any]) -> str:
    location = error.get("loc", ())
    if error.get("type") == "json_invalid":
        location = location[:1]  # what follows is the offset of the mistake, not a field
    return str(json_safe(".".join(str(part) for part in location)[:_MAX_TEXT]))


def _message(error: dict[str, Any]) -> str:
    message = str(error.get("msg", ""))
    if error.get("type") == "json_invalid":
        reason = (error.get("ctx") or {}).get("error", "")
        place = "".join(f" at character {part}" for part in error.get("loc", ())[-1:])
        message = f"{message}{place}: {reason}"
    return str(json_safe(message[:_MAX_TEXT]))
