"""Requests answered: how many, how fast, how many at once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

UNMATCHED = "unmatched"
"""The one ``endpoint`` label of all paths without a route, so that a scan makes no series."""

_MEASURED = "shared.metrics.measured"
_PARAMETER = re.compile(r"{([^}:]+)")
_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)


class HttpMetrics:
    """The HTTP metrics in one registry.

    One object per registry: a second one for the same registry raises `ValueError`. Apps that
    share a process and the default registry tell their series apart by the label `service`.
    `endpoint` is a route's template, never a path as it came.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.requests_total = Counter(
            "http_requests_total",
            "HTTP requests answered.",
            ["service", "method", "endpoint", "status"],
            registry=registry,
        )
        self.request_duration_seconds = Histogram(
            "http_request_duration_seconds",
            "Time from a request's first byte read to its answer's last byte sent.",
            ["service", "method", "endpoint"],
            registry=registry,
        )
        self.requests_in_progress = Gauge(
            "http_requests_in_progress",
            "HTTP requests being answered now.",
            ["service"],
            registry=registry,
            multiprocess_mode="livesum",
        )

    def begin(self, scope: MutableMapping[str, Any], service: str) -> bool:
        """Count an HTTP request as one in progress; `finish` has to follow.

        False if it is not a request, or is measured further out already: nothing is to follow.
        """
        if scope["type"] != "http" or _MEASURED in scope:
            return False
        scope[_MEASURED] = True
        self.requests_in_progress.labels(service).inc()
        return True

    def finish(
        self,
        service: str,
        method: str,
        endpoint: str,
        status: int,
        seconds: float,
        exemplar: dict[str, str] | None,
    ) -> None:
        """Count a request that is over.

        Args:
            service: who answered.
            method: as it came; what HTTP has no name for is counted as ``OTHER``.
            endpoint: the route's template, see `route_template`.
            status: of the answer.
            seconds: how long it took.
            exemplar: what leads from its bucket to its trace.
        """
        method = method if method in _METHODS else "OTHER"
        self.requests_in_progress.labels(service).dec()
        self.requests_total.labels(service, method, endpoint, str(status)).inc()
        self.request_duration_seconds.labels(service, method, endpoint).observe(seconds, exemplar)


def route_template(scope: MutableMapping[str, Any]) -> str:
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


default_http_metrics = HttpMetrics()
"""Those of the default registry."""

http_requests_total = default_http_metrics.requests_total
http_request_duration_seconds = default_http_metrics.request_duration_seconds
http_requests_in_progress = default_http_metrics.requests_in_progress

http_requests_limited_total = Counter(
    "http_requests_limited_total",
    "HTTP requests answered with 429, by whose limit it was: client or tenant.",
    ["service", "scope"],
)
http_rate_limits_skipped_total = Counter(
    "http_rate_limits_skipped_total",
    "Rate limits that were not applied to a request, since their storage did not answer.",
    ["service", "scope"],
)
