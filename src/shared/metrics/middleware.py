"""The HTTP metrics of an application without the edge, and the route that serves all metrics."""

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.metrics.exemplar import exemplar
from shared.metrics.exposition import render
from shared.metrics.http import (
    default_http_metrics,
    http_request_duration_seconds,
    http_requests_in_progress,
    http_requests_total,
    route_template,
)

__all__ = [
    "PrometheusMiddleware",
    "http_request_duration_seconds",
    "http_requests_in_progress",
    "http_requests_total",
    "metrics_endpoint",
]


class PrometheusMiddleware:
    """Measures the HTTP requests of an ASGI application.

    `shared.api.Edge` measures too; together they count a request once.
    """

    def __init__(self, app: ASGIApp, service_name: str) -> None:
        self.app = app
        self.service_name = service_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        metrics, service = default_http_metrics, self.service_name
        if not metrics.begin(scope, service):
            await self.app(scope, receive, send)
            return
        status, counted, began = 500, False, time.perf_counter()

        def count() -> None:
            nonlocal counted
            if not counted:
                counted = True
                seconds, route = time.perf_counter() - began, route_template(scope)
                metrics.finish(service, scope["method"], route, status, seconds, exemplar())

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
