"""What a caller is told when a request fails: the envelope, or a problem document (RFC 9457)."""

from __future__ import annotations

import logging
import math
import re
import secrets
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic_core import to_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

from shared.api.models import ErrorDetail, ErrorResponse
from shared.api.responses import create_meta
from shared.errors import GlamBaseError, InternalError
from shared.errors.details import json_safe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Scope


PROBLEM_JSON = "application/problem+json"

_logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_RETRY_LATER = frozenset(
    {HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
)


def error_answer(
    scope: Scope,
    *,
    status: int,
    code: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Make the answer to a failed request, in the form its ``Accept`` header prefers."""
    state = scope.get("state", {})
    message = json_safe(message)
    meta = create_meta(state.get("request_id"), state.get("correlation_id"))
    media_type = "application/json"
    content: object = ErrorResponse(
        error=ErrorDetail(code=code, message=message, details=dict(details) if details else None),
        meta=meta,
    )
    if prefers_problem(Headers(scope=scope).getlist("accept")):
        media_type = PROBLEM_JSON
        # Section 4.2.1: "about:blank" says that the title is the phrase of the status; the code
        # is an extension member (section 3.2), beside the envelope's own parts.
        content = {
            "type": "about:blank",
            "title": phrase(status),
            "status": status,
            "detail": message,
            "instance": quote(scope.get("path", "/"), errors="replace"),
            "code": code,
            **({"details": details} if details else {}),
            "meta": meta,
        }
    response = Response(
        to_json(content, fallback=str), status, media_type=media_type, headers=headers
    )
    MutableHeaders(raw=response.raw_headers).add_vary_header("Accept")
    return response


def answer_error(scope: Scope, error: GlamBaseError) -> Response:
    """Make the answer to an error that was raised on purpose."""
    headers = {}
    wait = error.details.get("retry_after")
    if error.status in _RETRY_LATER and isinstance(wait, int | float) and math.isfinite(wait):
        headers["Retry-After"] = str(max(0, math.ceil(wait)))
    if error.status == HTTPStatus.UNAUTHORIZED:
        # RFC 9110, section 15.5.2: a 401 names at least one way to authenticate.
        scheme = str(error.details.get("auth_type", ""))
        headers["WWW-Authenticate"] = scheme if _TOKEN.fullmatch(scheme) else "Bearer"
    return error_answer(
        scope,
        status=error.status,
        code=error.code,
        message=error.message,
        details=error.details,
        headers=headers,
    )


def answer_unexpected(scope: Scope, error: BaseException) -> Response:
    """Make the answer to an error nobody foresaw: an id and nothing else.

    The id is in the log too, with the stack; a second call for the same request gives the same
    answer and writes nothing.
    """
    return error_answer(
        scope,
        status=InternalError.status,
        code=InternalError.code,
        message="Internal server error",
        details={"error_id": log_unexpected(scope, error)},
    )


def log_unexpected(scope: Scope, error: BaseException) -> str:
    """Write the error with its stack, once per request, and return the id it is found under."""
    state: dict[str, Any] = scope.setdefault("state", {})
    error_id: str | None = state.get("error_id")
    if error_id is None:
        error_id = state["error_id"] = f"err_{secrets.token_hex(6)}"
        _logger.error(
            "unexpected error in %s %s",
            scope.get("method", "WEBSOCKET"),
            scope.get("path", ""),
            exc_info=error,
            extra={"error_id": error_id},
        )
    return error_id


def phrase(status: int) -> str:
    """Return the status's own words (RFC 9110, section 15), or its number if it has none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def prefers_problem(accept: list[str]) -> bool:
    """Whether an ``Accept`` header asks for ``application/problem+json`` rather than plain JSON.

    It has to be named: a wildcard keeps the envelope. Of two with the same weight the one named
    first is preferred.
    """
    weights: dict[str, float] = {}
    for item in ",".join(accept).split(","):
        media_type, *parameters = (part.strip().lower() for part in item.split(";"))
        weights.setdefault(media_type, _weight(parameters))
    problem = weights.get(PROBLEM_JSON, 0.0)
    plain = weights.get("application/json", 0.0)
    order = list(weights)
    return problem > 0 and (
        problem > plain
        or (problem == plain and order.index(PROBLEM_JSON) < order.index("application/json"))
    )


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0 <= weight <= 1 else 0.0
    return 1.0
