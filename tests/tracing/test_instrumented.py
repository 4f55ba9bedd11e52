"""Beside OpenTelemetry's own instrumentation, and FastAPI's."""

from __future__ import annotations

import httpx
from fastapi import FastAPI
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.config import TracingSettings
from shared.context import TraceContext
from shared.tracing import configure_tracing, instrumented_trace
from tests.tracing.collector import collecting


async def ask(app: FastAPI, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://shop"
    ) as client:
        return await client.get("/", headers=headers)


def test_without_instrumentation_there_is_no_such_span() -> None:
    assert instrumented_trace() is None


async def test_the_span_fastapi_opens_is_the_one_ours_belongs_under() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = FastAPI(telemetry={"tracer_provider": provider, "operation_spans": False})
    seen: list[TraceContext | None] = []

    @app.get("/")
    async def look() -> None:
        seen.append(instrumented_trace())

    caller = TraceContext.start()
    await ask(app, traceparent=caller.traceparent, tracestate="vendor=1")
    (theirs,) = exporter.get_finished_spans()
    (found,) = seen
    assert found is not None
    assert theirs.context is not None
    assert found.trace_id == caller.trace_id
    assert int(found.span_id, 16) == theirs.context.span_id
    assert found.sampled
    assert found.tracestate == "vendor=1"


async def test_exporting_does_not_wake_fastapis_own_telemetry() -> None:
    """It has spans of its own as soon as there is a global provider; we set none."""
    app = FastAPI()
    seen: list[TraceContext | None] = []

    @app.get("/")
    async def look() -> None:
        seen.append(instrumented_trace())

    with collecting() as collector:
        close = configure_tracing(
            TracingSettings(endpoint=collector.url), service="s", version="1", environment="dev"
        )
        await ask(app)
        await close()
        assert collector.paths == []
    assert seen == [None]
