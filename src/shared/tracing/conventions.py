"""Our spans in the words of OpenTelemetry's semantic conventions, version 1.44.0.

https://github.com/open-telemetry/semantic-conventions/tree/v1.44.0/docs, below: HTTP
(`http/http-spans.md`), messaging (`messaging/messaging-spans.md`), errors
(`general/recording-errors.md`), deployment (`resource/deployment-environment.md`). An attribute
for which they have no word keeps its own; so do the attributes of a service's own spans.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.tracing.span import FinishedSpan


SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

# HTTP spans: a method outside these must not become a name or a value of `http.request.method`.
_METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)
_WEBSOCKET = "WEBSOCKET"
_UNMATCHED = "unmatched"  # the edge's word for a path that no route took

_SERVER = {
    "path": "url.path",
    "route": "http.route",
    "status": "http.response.status_code",
    "client": "client.address",
}
_CLIENT = {
    "path": "url.path",
    "status": "http.response.status_code",
    "upstream": "service.peer.name",
}
_MESSAGE = {"event_id": "messaging.message.id", "subscriber": "messaging.consumer.group.name"}
_OPERATION_TYPES = {"publish": "send", "handle": "process"}

_ENVIRONMENTS = {"dev": "development", "prod": "production"}

_TYPE = re.compile(r"[A-Za-z_][\w.<>]*")
_HTTP_STATUS = re.compile(r"HTTP (\d{3})")


def resource_of(service: str, version: str, environment: str) -> dict[str, str]:
    """Say whose spans they are."""
    return {
        "service.name": service,
        "service.version": version,
        "deployment.environment.name": _ENVIRONMENTS.get(environment, environment),
    }


def name_of(span: FinishedSpan) -> str:
    """Give the span's name: `{method} {route}` of a request, else the one it has."""
    if not _is_request(span):
        return span.name
    method, route = str(span.attributes["method"]), str(span.attributes["route"])
    if method not in _METHODS:
        method = "GET" if method == _WEBSOCKET else "HTTP"
    return method if route == _UNMATCHED else f"{method} {route}"


def attributes_of(span: FinishedSpan) -> dict[str, object]:
    """Give the span's attributes under the names of the conventions."""
    operation, _, rest = span.name.partition(" ")
    if _is_request(span):
        found = _renamed(span.attributes, _SERVER)
        found.update(_method(str(found.pop("method"))))
        if found["http.route"] == _UNMATCHED:
            del found["http.route"]
    elif span.kind == "client" and "upstream" in span.attributes:
        found = _renamed(span.attributes, _CLIENT)
        found.update(_method(operation))
        attempt = found.pop("attempt", 1)
        if isinstance(attempt, int) and attempt > 1:
            found["http.request.resend_count"] = attempt - 1
    elif span.kind in {"producer", "consumer"} and operation in _OPERATION_TYPES:
        found = _renamed(span.attributes, _MESSAGE)
        found |= {
            "messaging.system": "nats",
            "messaging.destination.name": rest,
            "messaging.operation.name": operation,
            "messaging.operation.type": _OPERATION_TYPES[operation],
        }
    else:
        found = dict(span.attributes)
    if span.error is not None:
        found["error.type"] = error_type(span.error)
    return found


def error_type(error: str) -> str:
    """Give the class of an error: the exception's name, the status of an answer, or `_OTHER`.

    >>> error_type("ValueError: no such order: 17"), error_type("HTTP 503"), error_type("it broke")
    ('ValueError', '503', '_OTHER')
    """
    if status := _HTTP_STATUS.fullmatch(error):
        return status[1]
    kind = error.partition(":")[0]
    return kind if _TYPE.fullmatch(kind) else "_OTHER"


def says_enough(error: str) -> bool:
    """Say whether the attributes tell of the error all there is, so that a status needs no words.

    HTTP spans, status: no description where `http.response.status_code` says it.
    """
    return _HTTP_STATUS.fullmatch(error) is not None


def _is_request(span: FinishedSpan) -> bool:
    return span.kind == "server" and span.attributes.keys() >= {"method", "route"}


def _method(method: str) -> dict[str, object]:
    if method == _WEBSOCKET:  # RFC 6455, section 4.1: its opening handshake is a GET
        return {"http.request.method": "GET", "network.protocol.name": "websocket"}
    if method in _METHODS:
        return {"http.request.method": method}
    return {"http.request.method": "_OTHER", "http.request.method_original": method}


def _renamed(attributes: Mapping[str, object], names: Mapping[str, str]) -> dict[str, object]:
    return {names.get(name, name): value for name, value in attributes.items()}
