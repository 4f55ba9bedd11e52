"""HTTP metrics: what is measured of a request, and the label it is counted under."""

import re
import time
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.metrics.exposition import render
from shared.metrics.http import (
    default_http_metrics,
    http_request_duration_seconds,
    http_requests_in_progress,
    http_requests_total,
)

__all__ = [
    "UNMATCHED",
    "PrometheusMiddleware",
    "http_request_duration_seconds",
    "http_requests_in_progress",
    "http_requests_total",
    "measure_once",
    "metrics_endpoint",
    "route_template",
]

UNMATCHED = "unmatched"
"""The one ``endpoint`` label of all paths without a route, so that a scan makes no series."""

_MEASURED = "shared.metrics.measured"
_PARAMETER = re.compile(r"{([^}:]+)")


def measure_once(scope: Scope) -> bool:
    """Whether a connection is a request that nobody further out measures; asked once each."""
    if scope["type"] != "http" or _MEASURED in scope:
        return False
    scope[_MEASURED] = True
    return True


class PrometheusMiddleware:
    """Measures the HTTP requests of an ASGI application.

    `shared.api.Edge` measures too; together they count a request once.
    """

    def __init__(self, app: ASGIApp, service_name: str) -> None:
        self.app = app
        self.service_name = service_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if not measure_once(scope):
            await self.app(scope, receive, send)
            return
        metrics, service = default_http_metrics, self.service_name
        status, counted, began = 500, False, time.perf_counter()
        metrics.begin(service)

        def count() -> None:
            nonlocal counted
            if not counted:
                counted = True
                seconds = time.perf_counter() - began
                metrics.finish(service, scope["method"], route_template(scope), status, seconds)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                count()

        try:
            await self.app(scope, receive, watched)
        finally:
            count()


async def metrics_endpoint(request: Request) -> Response:
    """Answer with all metrics of the process, a service's own among them, for a scrape."""
    body, content_type = render(accept=request.headers.get("accept", ""))
    return Response(body, headers={"Content-Type": content_type})


def route_template(scope: Scope) -> str:
    """Return the template of the route that took the request, such as ``/orders/{order_id}``.

    Call it after the application. A path no route took is `UNMATCHED`; one that ended in a mounted
    application without routes of its own is the mount's path and ``/{path}``.
    """
    route = scope.get("route")
    included = scope.get("fastapi", {}).get("effective_route_context")
    if included is not None and (
        route is None or route in (included.original_route, included.starlette_route)
    ):
        # FastAPI keeps a route as its router declared it; the prefix it was included under is here.
        route = included if included.starlette_route is None else included.starlette_route
    if route is None and "endpoint" in scope:
        # FastAPI names no route where the route is a plain one of Starlette.
        routes = getattr(scope.get("app"), "routes", ())
        route = next((r for r in routes if getattr(r, "endpoint", None) is scope["endpoint"]), None)
    template: str | None = getattr(route, "path_format", None)
    root_path: str = scope.get("root_path", "")
    prefix = root_path.removeprefix(scope.get("app_root_path", root_path))
    mount = hasattr(route, "app") and not hasattr(route, "endpoint")
    if prefix and (mount or template is None):
        # A mount's own path is in the prefix already.
        template = "/{path}"
    if template is None:
        return UNMATCHED
    if prefix:
        prefix = _prefix_template(prefix, template, scope.get("path_params", {}))
    return prefix + template


def _prefix_template(prefix: str, template: str, path_params: Mapping[str, Any]) -> str:
    """Put the names of a mount's parameters back for their values."""
    own = set(_PARAMETER.findall(template)) | {"path"}
    foreign = {str(value): name for name, value in path_params.items() if name not in own}
    if not foreign:
        return prefix
    segments = prefix.split("/")
    if not foreign.keys() <= set(segments):
        return "/{mount}"
    return "/".join(f"{{{foreign[s]}}}" if s in foreign else s for s in segments)
