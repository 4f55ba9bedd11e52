"""What a collector gets of our spans, and what it costs when there is none."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fastapi import FastAPI
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from pydantic import SecretStr

from shared.api import install_edge, install_exception_handlers
from shared.config import ApiSettings, DatabaseSettings, TracingSettings
from shared.context import Context, TraceContext, bind
from shared.database import Database
from shared.database.engine.instrumentation import trace_statements
from shared.errors import MissingExtraError
from shared.tracing import (
    FinishedSpan,
    configure_tracing,
    export_to,
    exporter,
    record_span,
    span,
)
from tests.tracing.collector import Collector, attributes_of, collecting

if TYPE_CHECKING:
    from pathlib import Path

Close = Callable[[], Awaitable[None]]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(autouse=True)
def _exports_to_nobody_afterwards() -> Iterator[None]:
    yield
    export_to(None)


def configure(endpoint: str | None, **settings: Any) -> Close:
    return configure_tracing(
        TracingSettings(endpoint=endpoint, **settings),
        service="shop-service",
        version="3.1.4",
        environment="prod",
    )


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


# -- what arrives ----------------------------------------------------------------------------------


async def test_request_handler_and_statement_arrive_in_one_trace_each_under_its_cause(
    collector: Collector, database_settings: DatabaseSettings
) -> None:
    close = configure(collector.url)
    async with Database(database_settings) as database:
        trace_statements(database)
        app = FastAPI()

        @app.post("/orders/{order_id}")
        async def pay(order_id: int) -> None:
            async with database.transaction() as session:
                await session.execute(statement(), {"id": order_id})
            parent = TraceContext.parse(traceparent)
            with (
                bind(Context.start(trace=parent)),
                span(
                    "handle evt.credit.paid",
                    kind="consumer",
                    parent=parent,
                    subscriber="shop-service-pay",
                    event_id="e-1",
                    attempt=2,
                ),
            ):
                async with database.transaction() as session:
                    await session.execute(statement("pg_class"), {"id": order_id})

        install_exception_handlers(app)
        install_edge(app, ApiSettings(), service="shop-service", metrics=False)
        caller = TraceContext.start()
        traceparent = caller.child().traceparent
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://shop"
        ) as client:
            answer = await client.post(
                "/orders/7?token=x", headers={"traceparent": caller.traceparent}
            )
        assert answer.status_code == 200
    await close()

    spans = collector.spans
    assert set(spans) == {
        "POST /orders/{order_id}",
        "SELECT pg_tables",
        "handle evt.credit.paid",
        "SELECT pg_class",
    }
    assert {one.trace_id.hex() for one in spans.values()} == {caller.trace_id}

    server = spans["POST /orders/{order_id}"]
    assert server.kind == Span.SPAN_KIND_SERVER
    assert server.parent_span_id.hex() == caller.span_id
    assert server.span_id.hex() == TraceContext.parse(answer.headers["traceparent"]).span_id  # type: ignore[union-attr]
    assert server.status.code == Status.STATUS_CODE_UNSET
    assert attributes_of(server.attributes) == {
        "http.request.method": "POST",
        "http.route": "/orders/{order_id}",
        "http.response.status_code": 200,
        "url.path": "/orders/7",
        "client.address": "127.0.0.1",
    }
    handler = spans["handle evt.credit.paid"]
    assert handler.kind == Span.SPAN_KIND_CONSUMER
    assert handler.parent_span_id.hex() == traceparent.split("-")[2]
    assert attributes_of(handler.attributes) == {
        "messaging.system": "nats",
        "messaging.destination.name": "evt.credit.paid",
        "messaging.operation.name": "handle",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": "shop-service-pay",
        "messaging.message.id": "e-1",
        "attempt": 2,
    }
    first, second = spans["SELECT pg_tables"], spans["SELECT pg_class"]
    assert first.kind == second.kind == Span.SPAN_KIND_CLIENT
    assert first.parent_span_id == server.span_id
    assert second.parent_span_id == handler.span_id
    assert server.start_time_unix_nano <= first.start_time_unix_nano
    assert first.start_time_unix_nano <= first.end_time_unix_nano
    assert attributes_of(first.attributes) == {
        "db.system.name": "postgresql",
        "db.namespace": f"{database_settings.name}|public",
        "db.query.summary": "SELECT pg_tables",
        "db.query.text": "SELECT 1 FROM pg_tables WHERE 1 = $1::INTEGER",
        "server.address": database_settings.host,
        "server.port": database_settings.port,
    }


def statement(table: str = "pg_tables") -> Any:
    from sqlalchemy import Integer, bindparam, text

    return text(f"SELECT 1 FROM {table} WHERE 1 = :id").bindparams(bindparam("id", type_=Integer))


async def test_the_resource_says_whose_spans_they_are(collector: Collector) -> None:
    close = configure(f"{collector.url}/", headers={"X-Team": SecretStr("t0p")})
    with span("step"):
        pass
    await close()
    assert collector.paths == ["/v1/traces"]
    assert collector.headers[0]["x-team"] == "t0p"
    assert collector.headers[0]["content-type"] == "application/x-protobuf"
    assert (
        collector.resource.items()
        >= {
            "service.name": "shop-service",
            "service.version": "3.1.4",
            "deployment.environment.name": "production",
        }.items()
    )
    (scope,) = collector.requests[0].resource_spans[0].scope_spans
    assert scope.scope.name == "glam-shared"
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"


async def test_an_endpoint_may_be_written_with_its_path(collector: Collector) -> None:
    close = configure(f"{collector.url}/v1/traces")
    with span("step"):
        pass
    await close()
    assert collector.paths == ["/v1/traces"]


async def test_times_trace_state_and_flags_are_kept(collector: Collector) -> None:
    close = configure(collector.url)
    trace = TraceContext.parse(f"00-{'a1' * 16}-{'b2' * 8}-03", "vendor=1,other=2")
    assert trace is not None
    record_span(
        name="publish cmd.notification.send_email",
        kind="producer",
        context=trace,
        parent_span_id=None,
        started=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        duration_seconds=1.25,
    )
    await close()
    (one,) = collector.spans.values()
    assert one.start_time_unix_nano == 1_767_323_045_678_901_000
    assert one.end_time_unix_nano == 1_767_323_046_928_901_000
    assert one.trace_state == "vendor=1,other=2"
    assert one.parent_span_id == b""
    assert attributes_of(one.attributes)["messaging.operation.type"] == "send"


async def test_a_failed_step_has_its_class_and_its_words_without_secrets(
    collector: Collector,
) -> None:
    close = configure(collector.url)
    with pytest.raises(ValueError, match="refused"), span("charge", kind="client", api_key="k"):
        raise ValueError("refused: password=hunter2")
    await close()
    (one,) = collector.spans.values()
    assert one.status.code == Status.STATUS_CODE_ERROR
    assert one.status.message == "ValueError: refused: password=**********"
    assert attributes_of(one.attributes) == {"error.type": "ValueError", "api_key": "**********"}


async def test_attributes_of_any_kind_arrive(collector: Collector) -> None:
    close = configure(collector.url)
    with span("odd \udcff", big=2**70, none=None, many=["a", {"b": 1}], text="\udcff", yes=True):
        pass
    await close()
    (one,) = collector.spans.values()
    assert one.name == "odd ?"
    assert attributes_of(one.attributes) == {
        "big": str(2**70),
        "many": '["a",{"b":1}]',
        "text": "?",
        "yes": True,
    }


# -- what does not ---------------------------------------------------------------------------------


async def test_what_is_not_sampled_is_logged_and_not_exported(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="shared.tracing")
    close = configure(collector.url)
    unsampled = TraceContext.parse(f"00-{'a1' * 16}-{'b2' * 8}-00")
    with span("unsampled", parent=unsampled), span("below it"):
        pass
    with span("sampled"):
        pass
    await close()
    assert set(collector.spans) == {"sampled"}
    assert {record.message for record in caplog.records} >= {"span unsampled", "span below it"}


def test_without_an_endpoint_nothing_of_the_sdk_is_loaded() -> None:
    code = """
import asyncio, sys
from shared.config import TracingSettings
from shared.database.engine.instrumentation import trace_statements
from shared.tracing import configure_tracing, exporter, instrumented_trace, span
close = configure_tracing(TracingSettings(), service="s", version="1", environment="dev")
with span("step"):
    assert instrumented_trace() is None
assert exporter() is None
asyncio.run(close())
print(sorted(name for name in sys.modules if name.startswith(("opentelemetry", "google"))))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_an_endpoint_without_the_extra_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "shared.tracing.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'glam-shared\[otel\]'"):
        configure("http://127.0.0.1:4318")
    assert exporter() is None


# -- a collector that is away ----------------------------------------------------------------------


async def test_a_dead_collector_disturbs_nobody_and_is_told_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint = closed_port()
    close = configure(endpoint, timeout_seconds=0.2, flush_seconds=20)
    for _ in range(2000):  # several batches
        with span("step"):
            pass
    await close()
    await close()
    with span("after"):
        pass
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.message for line in lines] == ["spans cannot be exported"]
    assert vars(lines[0])["endpoint"] == f"{endpoint}/v1/traces"
    assert "Failed to export" in vars(lines[0])["reason"]


async def test_a_collector_that_hangs_does_not_hold_the_stop(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    close = configure(collector.url, flush_seconds=0.05)
    collector.held.clear()
    with span("step"):
        pass
    await close()
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == [
        "spans are given up: the collector did not take them within 0.05 s"
    ]


async def test_its_return_is_told_with_what_was_lost(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="shared.tracing.otlp")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    collector.answer = 400
    close = configure(collector.url)
    with span("lost"):
        pass
    async with asyncio.timeout(120):
        while "spans cannot be exported" not in caplog.messages:
            await asyncio.sleep(0.01)
    collector.answer = 200
    with span("kept"):
        pass
    await close()
    assert set(collector.spans) == {"kept"}
    told = [record for record in caplog.records if record.name == "shared.tracing.otlp"]
    assert [record.message for record in told] == [
        "spans cannot be exported",
        "spans are exported again",
    ]
    assert vars(told[1])["lost"] == 1


async def test_a_full_queue_loses_the_oldest_and_says_so(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    collector.held.clear()
    close = configure(collector.url, flush_seconds=20)
    for name in ("a", "b"):  # a batch, which the collector holds
        with span(name):
            pass
    await collector.asked()
    for name in ("c", "d", "e", "f"):
        with span(name):
            pass
    collector.held.set()
    await close()
    assert set(collector.spans) == {"a", "b", "e", "f"}
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.message for record in warnings] == ["spans cannot be exported"]
    assert vars(warnings[0])["reason"] == "Queue full, dropping Span."


async def test_a_second_configuration_replaces_the_first_and_is_not_ended_with_it(
    collector: Collector,
) -> None:
    with collecting() as other:
        close_first = configure(other.url)
        close = configure(collector.url)
        await close_first()
        with span("step"):
            pass
        await close()
        assert other.paths == []
    assert set(collector.spans) == {"step"}
    assert exporter() is None


def test_the_process_ends_although_the_collector_hangs(collector: Collector) -> None:
    """Neither a thread of the SDK nor one of ours keeps the interpreter alive."""
    collector.held.clear()
    code = f"""
import asyncio
from shared.config import TracingSettings
from shared.tracing import configure_tracing, span

async def main():
    settings = TracingSettings(
        endpoint={collector.url!r}, flush_seconds=0.05, timeout_seconds=60
    )
    close = configure_tracing(settings, service="s", version="1", environment="dev")
    with span("step"):
        pass
    await close()
    print("closed")

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=15
    )
    assert (done.returncode, done.stdout) == (0, "closed\n")


# -- settings --------------------------------------------------------------------------------------


def test_the_standard_variable_sets_the_endpoint(tmp_path: Path) -> None:
    from shared.config import ServiceSettings, load_settings

    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "shared.yml").write_text("{}")

    def endpoint(**environ: str) -> str | None:
        return load_settings(
            ServiceSettings, "shop-service", root=tmp_path, environ=environ
        ).tracing.endpoint

    assert endpoint() is None
    assert endpoint(OTEL_EXPORTER_OTLP_ENDPOINT="http://a:4318") == "http://a:4318"
    own = "SHOP_TRACING__ENDPOINT"
    assert endpoint(OTEL_EXPORTER_OTLP_ENDPOINT="http://a:1", **{own: "http://b:1"}) == "http://b:1"
    traces = "http://c:1/v1/traces"
    assert (
        endpoint(
            OTEL_EXPORTER_OTLP_ENDPOINT="http://a:1", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=traces
        )
        == traces
    )


def test_headers_are_secret_wherever_settings_are_shown(tmp_path: Path) -> None:
    from shared.config import ServiceSettings, explain, load_settings

    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "shared.yml").write_text("tracing:\n  headers:\n    x-team: t0p\n")
    settings = load_settings(ServiceSettings, "shop-service", root=tmp_path, environ={})
    assert settings.tracing.headers["x-team"].get_secret_value() == "t0p"
    shown = [str(settings), repr(settings), settings.model_dump_json()]
    shown += [line.value for line in explain(ServiceSettings, "shop", root=tmp_path, environ={})]
    assert not [text for text in shown if "t0p" in text]


async def test_an_exporter_of_ones_own_takes_each_sampled_span_as_it_was_recorded() -> None:
    taken: list[FinishedSpan] = []

    class Taker:
        def export(self, span: FinishedSpan) -> None:
            taken.append(span)

    export_to(Taker())
    with span("step", kind="client", a=1) as active:
        pass
    with span("unsampled", parent=TraceContext("a1" * 16, "b2" * 8, flags=0)):
        pass
    (one,) = taken
    assert (one.name, one.kind, one.context) == ("step", "client", active.context)
    assert one.attributes == {"a": 1}
    assert one.error is None
