from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics
from shared.api import install_edge
from shared.config import ApiSettings
from shared.metrics import HttpMetrics, record_build, render

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    builds = [labels for name, labels in found if name == "build_info"]
    ours = {("service", "credit-service"), ("version", "1.2")}
    assert len([labels for labels in builds if ours < labels]) == 1


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


async def test_two_services_in_one_process_each_serve_their_own() -> None:
    texts = []
    for service in ("credit-service", "webhook-service"):
        app = FastAPI()
        registry = CollectorRegistry()
        install_edge(app, ApiSettings(), service=service, registry=registry)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
            await client.get("/nowhere")
            texts.append((await client.get("/metrics")).text)
    credit, webhook = texts
    assert 'service="credit-service"' in credit
    assert 'service="webhook-service"' not in credit
    assert 'service="webhook-service"' in webhook
    assert 'service="credit-service"' not in webhook


WORKER = """
import sys
from shared import metrics
metrics.http_requests_total.labels("s", "GET", "/", "200").inc(int(sys.argv[1]))
metrics.http_requests_in_progress.labels("s").inc()
metrics.outbox_backlog.labels("s").set(int(sys.argv[1]))
metrics.message_handling_seconds.labels("s", "d").observe(0.01, {"trace_id": "a"})
metrics.record_build("s")
print("ready", flush=True)
for accept in sys.stdin:
    text, content_type = metrics.render(accept=accept.strip())
    print(content_type, text.decode(), sep="\\n", end="\\0", flush=True)
"""


class Worker:
    """A process that counts into the folder it shares with others."""

    def __init__(self, folder: Path, amount: int) -> None:
        command = [sys.executable, "-c", WORKER, str(amount)]
        environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environ, stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in, self._out = self.process.stdin, self.process.stdout
        assert self._out.readline() == "ready\n"

    def scrape(self, accept: str = "") -> tuple[str, str]:
        """Ask for the metrics; the content type and the text."""
        print(accept, file=self._in, flush=True)
        content_type, _, text = "".join(iter(lambda: self._out.read(1), "\0")).partition("\n")
        return content_type, text

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[tuple[Worker, Worker]]:
    """Two processes; they have counted 2 and 3."""
    first = Worker(tmp_path, 2)
    second = Worker(tmp_path, 3)
    yield first, second
    first.kill()
    second.kill()


REQUESTS = (
    "http_requests_total",
    frozenset({("service", "s"), ("method", "GET"), ("endpoint", "/"), ("status", "200")}),
)
IN_PROGRESS = ("http_requests_in_progress", frozenset({("service", "s")}))
BACKLOG = ("outbox_backlog", frozenset({("service", "s")}))
HANDLED = ("message_handling_seconds_count", frozenset({("service", "s"), ("subscriber", "d")}))


def test_any_worker_answers_for_all(workers: tuple[Worker, Worker]) -> None:
    for worker in workers:
        found = samples(worker.scrape()[1].encode())
        assert found[REQUESTS] == 5
        assert found[IN_PROGRESS] == 2
        assert found[BACKLOG] == 3
        assert found[HANDLED] == 2
        assert sum(name == "build_info" for name, _ in found) == 1


def test_a_killed_worker_has_counted_and_does_nothing_any_more(
    workers: tuple[Worker, Worker],
) -> None:
    first, second = workers
    second.kill()
    found = samples(first.scrape()[1].encode())
    assert found[REQUESTS] == 5
    assert found[HANDLED] == 2
    assert found[IN_PROGRESS] == 1
    assert found[BACKLOG] == 2


def test_workers_write_openmetrics_too(workers: tuple[Worker, Worker]) -> None:
    content_type, text = workers[0].scrape("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")


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
        "http_requests_limited": ("service", "scope"),
        "http_rate_limits_skipped": ("service", "scope"),
        "messages_published": ("service", "stream", "subject"),
        "messages_handled": ("service", "subscriber", "outcome"),
        "messages_retried": ("service", "subscriber"),
        "messages_dead_lettered": ("service", "subscriber"),
        "dead_letters": ("service", "subscriber"),
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
        "database_idle_transactions": ("service",),
        "database_replica_lag_seconds": ("service", "replica"),
        "database_replica_reads": ("service", "target"),
        "database_transaction_retries": ("service",),
        "outbox_partitions": ("service",),
        "subscriber_circuit_open": ("service", "subscriber"),
        "subscriber_paused": ("service", "subscriber"),
        "subscriber_blocked_seconds": ("service", "subscriber"),
        "build_info": ("service", "version", "chassis", "python"),
    }
    objects = [value for value in vars(metrics).values() if hasattr(value, "_labelnames")]
    assert {metric._name: metric._labelnames for metric in objects} == documented


EVERY_METRIC = """
import sys
from prometheus_client import REGISTRY
from shared import metrics
import shared.http.metrics
metrics.record_build("s")
for metric in list(REGISTRY._collector_to_names):
    labels = getattr(metric, "_labelnames", ())
    if labels:
        child = metric.labels(*labels)
        (child.observe if hasattr(child, "observe") else child.inc)(1)
sys.stdout.buffer.write(metrics.render()[0])
"""

if shutil.which("promtool"):

    def test_prometheus_has_nothing_to_say_against_the_metrics() -> None:
        """Collected where `promtool` (Debian: prometheus) is installed; elsewhere it has no say."""
        written = subprocess.run([sys.executable, "-c", EVERY_METRIC], check=True, stdout=-1)
        assert b"http_client_requests_total{" in written.stdout
        checked = subprocess.run(
            ["promtool", "check", "metrics"],
            input=written.stdout,
            capture_output=True,
            check=False,
        )
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
