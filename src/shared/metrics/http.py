"""Requests answered: how many, how fast, how many at once."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram


class HttpMetrics:
    """The HTTP metrics in one registry.

    One object per registry: a second one for the same registry raises `ValueError`. Apps that
    share a process and the default registry tell their series apart by the label `service`.
    `endpoint` is a route's template, never a path as it came.

    A series is looked up by its labels once: `answered` and `in_progress` remember it. Whoever
    removes series from these metrics, as a test may, removes them with `clear`.
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
        self._answered: dict[tuple[str, str, str, int], tuple[Counter, Histogram]] = {}
        self._in_progress: dict[str, Gauge] = {}

    def answered(
        self, service: str, method: str, endpoint: str, status: int
    ) -> tuple[Counter, Histogram]:
        """Return the series that a request with this outcome is counted in, and timed in."""
        labels = (service, method, endpoint, status)
        series = self._answered.get(labels)
        if series is None:
            series = self._answered[labels] = (
                self.requests_total.labels(service, method, endpoint, str(status)),
                self.request_duration_seconds.labels(service, method, endpoint),
            )
        return series

    def in_progress(self, service: str) -> Gauge:
        """Return the series of requests in progress."""
        series = self._in_progress.get(service)
        if series is None:
            series = self._in_progress[service] = self.requests_in_progress.labels(service)
        return series

    def clear(self) -> None:
        """Remove all series."""
        self._answered.clear()
        self._in_progress.clear()
        for metric in (
            self.requests_total,
            self.request_duration_seconds,
            self.requests_in_progress,
        ):
            metric.clear()


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
