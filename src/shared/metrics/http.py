"""Requests answered: how many, how fast, how many at once."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.samples import Exemplar

_MANY = 256


class AnsweredRequest(NamedTuple):
    """A request to be counted."""

    service: str
    method: str
    endpoint: str
    status: int
    seconds: float
    trace_id: str | None
    """What its exemplar leads to."""

    moment: float
    """When it was answered, in seconds since 1970."""


if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    _Base = Counter  # for the type checkers, which cannot know what it is mixed into
else:
    _Base = object


class _UpToDate(_Base):
    """A metric that counts what is waiting to be counted before anybody reads it."""

    before_reading: Callable[[], None] = staticmethod(lambda: None)

    def collect(self) -> Iterable[Metric]:
        self.before_reading()
        return super().collect()

    def labels(self, *values: object, **named: object):  # type: ignore[no-untyped-def] # noqa: ANN202
        self.before_reading()
        return super().labels(*values, **named)


class _Counter(_UpToDate, Counter):
    pass


class _Gauge(_UpToDate, Gauge):
    pass


class _Histogram(_UpToDate, Histogram):
    pass


class HttpMetrics:
    """The HTTP metrics in one registry.

    One object per registry: a second one for the same registry raises `ValueError`. Apps that
    share a process and the default registry tell their series apart by the label `service`.
    `endpoint` is a route's template, never a path as it came.

    Requests wait to be counted until somebody reads, or many wait: counting many at once costs a
    tenth. A scrape sees every request that was answered before it. In multi-process mode each is
    counted at once, since another process may be the one that is asked.

    A series is looked up by its labels once, and remembered. Whoever removes series from these
    metrics, as a test may, removes them with `clear`.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.requests_total: Counter = _Counter(
            "http_requests_total",
            "HTTP requests answered.",
            ["service", "method", "endpoint", "status"],
            registry=registry,
        )
        self.request_duration_seconds: Histogram = _Histogram(
            "http_request_duration_seconds",
            "Time from a request's first byte read to its answer's last byte sent.",
            ["service", "method", "endpoint"],
            registry=registry,
        )
        self.requests_in_progress: Gauge = _Gauge(
            "http_requests_in_progress",
            "HTTP requests being answered now.",
            ["service"],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._metrics = (
            self.requests_total,
            self.request_duration_seconds,
            self.requests_in_progress,
        )
        self._waiting: deque[AnsweredRequest] = deque()
        self._patience = 0 if "PROMETHEUS_MULTIPROC_DIR" in os.environ else _MANY
        self._answered: dict[tuple[str, str, str, int], tuple[Counter, Histogram]] = {}
        self._in_progress: dict[str, set[object]] = {}
        self._shown: dict[str, int] = {}
        self._guard = Lock()
        for metric in self._metrics:
            metric.before_reading = self.count_waiting

    def begin(self, service: str, request: object) -> None:
        """Take a request for one in progress."""
        self._in_progress.setdefault(service, set()).add(request)
        if not self._patience:
            self.count_waiting()

    def finish(self, request: object, answered: AnsweredRequest) -> None:
        """Count a request, which is in progress no more."""
        self._in_progress[answered.service].discard(request)
        self._waiting.append(answered)
        if len(self._waiting) > self._patience:
            self.count_waiting()

    def count_waiting(self) -> None:
        """Count all requests that wait for it."""
        waiting = self._waiting
        outcomes: dict[tuple[str, str, str, int], list[AnsweredRequest]] = {}
        while waiting:
            try:
                request = waiting.popleft()
            except IndexError:  # another thread counts too
                break
            outcomes.setdefault(request[:4], []).append(request)
        for labels, requests in outcomes.items():
            count, seconds = self._series(*labels)
            count.inc(len(requests))
            _observe(seconds, requests)
        with self._guard:
            for service, requests_now in list(self._in_progress.items()):
                now, shown = len(requests_now), self._shown.get(service)
                if now != shown:
                    self._shown[service] = now
                    # What others have counted into the gauge stays in it.
                    gauge = Gauge.labels(self.requests_in_progress, service)
                    gauge.inc(now - (shown or 0))

    def _series(
        self, service: str, method: str, endpoint: str, status: int
    ) -> tuple[Counter, Histogram]:
        labels = (service, method, endpoint, status)
        series = self._answered.get(labels)
        if series is None:
            series = self._answered[labels] = (
                self.requests_total.labels(service, method, endpoint, str(status)),
                self.request_duration_seconds.labels(service, method, endpoint),
            )
        return series

    def clear(self) -> None:
        """Remove all series."""
        self.count_waiting()
        self._answered.clear()
        self._shown.clear()
        for metric in self._metrics:
            metric.clear()


def _observe(seconds: Histogram, requests: Iterable[AnsweredRequest]) -> None:
    """Observe many durations; of a bucket's exemplars the last one is kept, as ever."""
    total = 0.0
    counts: dict[int, int] = {}
    exemplars: dict[int, Exemplar] = {}
    for request in requests:
        bucket = bisect_left(seconds._upper_bounds, request.seconds)  # noqa: SLF001 - there is no
        counts[bucket] = counts.get(bucket, 0) + 1  # public way to observe many at once
        total += request.seconds
        if request.trace_id is not None:
            labels = {"trace_id": request.trace_id}
            exemplars[bucket] = Exemplar(labels, request.seconds, request.moment)
    seconds._sum.inc(total)  # noqa: SLF001
    for bucket, count in counts.items():
        seconds._buckets[bucket].inc(count)  # noqa: SLF001
    for bucket, exemplar in exemplars.items():
        seconds._buckets[bucket].set_exemplar(exemplar)  # noqa: SLF001


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
