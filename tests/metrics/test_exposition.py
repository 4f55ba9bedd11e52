from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics
from shared.metrics import HttpMetrics, record_build, render

if TYPE_CHECKING:
    from pathlib import Path


def samples(text: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_a_service_s_own_metrics_stand_beside_the_chassis_s() -> None:
    own = Counter("orders_debited_total", "Of a service's own.")
    try:
        own.inc()
        metrics.http_requests_total.labels("credit-service", "GET", "/x", "200").inc()
        record_build("credit-service", service_version="1.2")
        record_build("credit-service", service_version="1.2")
        body, content_type = render()
    finally:
        REGISTRY.unregister(own)
    assert content_type.startswith("text/plain; version=0.0.4")
    found = samples(body)
    assert found[("orders_debited_total", frozenset())] == 1
    request = {"service": "credit-service", "method": "GET", "endpoint": "/x", "status": "200"}
    assert found[("http_requests_total", frozenset(request.items()))] == 1
    (build,) = [labels for name, labels in found if name == "build_info"]
    assert {("service", "credit-service"), ("version", "1.2")} < build


def test_openmetrics_is_written_when_asked_for() -> None:
    body, content_type = render(accept="application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_two_apps_with_their_own_registries_do_not_clash() -> None:
    registries = [CollectorRegistry(), CollectorRegistry()]
    first, second = (HttpMetrics(registry) for registry in registries)
    first.requests_total.labels("a", "GET", "/", "200").inc()
    second.requests_total.labels("b", "GET", "/", "200").inc(2)
    assert b'service="a"' in render(registry=registries[0])[0]
    assert b'service="a"' not in render(registry=registries[1])[0]


WORKER = """
import sys
from shared import metrics
metrics.http_requests_total.labels("s", "GET", "/", "200").inc(int(sys.argv[1]))
metrics.http_requests_in_progress.labels("s").inc()
metrics.outbox_backlog.labels("s").set(int(sys.argv[1]))
metrics.message_handling_seconds.labels("s", "d").observe(0.01)
metrics.record_build("s")
print(metrics.render()[0].decode() if sys.argv[2:] else "ready", flush=True)
sys.stdin.read()
"""


def test_any_worker_answers_for_all(tmp_path: Path) -> None:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}

    def worker(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WORKER, *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, text=True)

    with worker("2") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        with worker("3", "scraped") as second:
            text, _ = second.communicate()
        first.communicate()
    found = samples(text.encode())
    request = {"service": "s", "method": "GET", "endpoint": "/", "status": "200"}
    assert found[("http_requests_total", frozenset(request.items()))] == 5
    assert found[("http_requests_in_progress", frozenset({("service", "s")}))] == 2
    assert found[("outbox_backlog", frozenset({("service", "s")}))] == 3
    count = ("message_handling_seconds_count", frozenset({("service", "s"), ("subscriber", "d")}))
    assert found[count] == 2
    assert sum(name == "build_info" for name, _ in found) == 1


def test_importing_opens_no_file_and_loads_no_web_framework(tmp_path: Path) -> None:
    code = """
import sys
import shared.metrics
assert "starlette" not in sys.modules
assert {"PrometheusMiddleware", "metrics_endpoint"} < set(shared.metrics.__all__)
assert shared.metrics.PrometheusMiddleware.__module__ == "shared.metrics.middleware"
assert "starlette" in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_total"):
        _ = metrics.nothing_total


def test_names_and_labels_are_the_documented_ones() -> None:
    documented = {
        "http_requests": ("service", "method", "endpoint", "status"),
        "http_request_duration_seconds": ("service", "method", "endpoint"),
        "http_requests_in_progress": ("service",),
        "messages_published": ("service", "stream", "subject"),
        "messages_handled": ("service", "subscriber", "outcome"),
        "messages_retried": ("service", "subscriber"),
        "messages_dead_lettered": ("service", "subscriber"),
        "message_handling_seconds": ("service", "subscriber"),
        "message_lag_seconds": ("service", "subscriber"),
        "messages_pending": ("service", "subscriber"),
        "messages_in_progress": ("service", "subscriber"),
        "outbox_backlog": ("service",),
        "outbox_oldest_age_seconds": ("service",),
        "outbox_relayed": ("service",),
        "outbox_relay_seconds": ("service",),
        "database_pool_connections": ("service", "state"),
        "database_pool_limit": ("service",),
        "database_pool_wait_seconds": ("service",),
        "database_slow_queries": ("service",),
        "build_info": ("service", "version", "chassis", "python"),
    }
    objects = [value for value in vars(metrics).values() if hasattr(value, "_labelnames")]
    assert {metric._name: metric._labelnames for metric in objects} == documented
