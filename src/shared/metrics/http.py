"""Requests answered: how many, how fast, how many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from shared.metrics.exemplar import exemplar

if TYPE_CHECKING:
    from shared.context import TraceContext

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

    def begin(self, service: str) -> None:
        """Count a request as one in progress; `finish` has to follow."""
        self.requests_in_progress.labels(service).inc()

    def finish(
        self,
        service: str,
        method: str,
        endpoint: str,
        status: int,
        seconds: float,
        trace: TraceContext | None = None,
    ) -> None:
        """Count a request that is over.

        Args:
            service: who answered.
            method: as it came; what HTTP has no name for is counted as ``OTHER``.
            endpoint: the route's template.
            status: of the answer.
            seconds: how long it took.
            trace: what the bucket's exemplar leads to; the current one unless given.
        """
        method = method if method in _METHODS else "OTHER"
        self.requests_in_progress.labels(service).dec()
        self.requests_total.labels(service, method, endpoint, str(status)).inc()
        self.request_duration_seconds.labels(service, method, endpoint).observe(
            seconds, exemplar(trace)
        )


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
