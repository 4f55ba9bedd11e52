from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from shared.api import install_edge
from shared.config import ApiSettings
from shared.context import Context, TraceContext, bind
from shared.events import StreamDefinition
from shared.messaging import Bus, OutgoingMessage, Subscriber, Subscription
from shared.metrics import exemplar, render

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.config import NatsSettings
    from shared.messaging import Delivery

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TRACE = TraceContext("a" * 32, "b" * 16)


def exemplars(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
        for sample in family.samples:
            if sample.exemplar is not None:
                yield sample.name, sample.exemplar.labels


def test_it_names_the_trace_given_else_the_current_one() -> None:
    assert exemplar() is None
    assert exemplar(TRACE) == {"trace_id": "a" * 32}
    other = TraceContext.start()
    with bind(Context.start(trace=other)):
        assert exemplar() == {"trace_id": other.trace_id}
        assert exemplar(TRACE) == {"trace_id": "a" * 32}


def test_without_one_an_observation_is_made_all_the_same() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("seconds", "Of something.", registry=registry)
    histogram.observe(1.0, exemplar())
    assert registry.get_sample_value("seconds_count") == 1


async def test_a_request_s_duration_leads_to_its_trace() -> None:
    registry = CollectorRegistry()
    app = FastAPI()

    @app.get("/orders")
    async def orders() -> list[str]:
        return []

    install_edge(app, ApiSettings(), service="shop-service", registry=registry)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        await client.get("/orders", headers={"traceparent": TRACE.traceparent})
        answer = await client.get("/metrics", headers={"accept": OPENMETRICS})
        plain = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    name = "http_request_duration_seconds_bucket"
    assert list(exemplars(answer.text)) == [(name, {"trace_id": "a" * 32})]
    assert plain.headers["content-type"].startswith("text/plain")
    assert "trace_id" not in plain.text


async def test_a_message_s_handling_leads_to_its_trace(nats_settings: NatsSettings) -> None:
    handled = asyncio.Event()

    async def handler(_: Delivery) -> None:
        handled.set()

    async with Bus(nats_settings, name="exemplars") as bus:
        await bus.ensure_stream(StreamDefinition("EXEMPLARS", ("evt.exemplars.>",)))
        subscription = Subscription(
            subject="evt.exemplars.seen", durable="exemplars", handler=handler, stream="EXEMPLARS"
        )
        subscriber = Subscriber(bus, subscription, service="exemplar-service")
        running = asyncio.create_task(subscriber.run())
        headers = {"traceparent": TRACE.traceparent}
        await bus.publisher.publish(OutgoingMessage("evt.exemplars.seen", b"1", headers, "m1"))
        await asyncio.wait_for(handled.wait(), 20)
        await subscriber.drain(5)
        await running
    body, _ = render(accept=OPENMETRICS)
    found = [
        sample.exemplar.labels
        for family in text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.name == "message_handling_seconds_bucket"
        and sample.labels["service"] == "exemplar-service"
        and sample.exemplar is not None
    ]
    assert found == [{"trace_id": "a" * 32}]


@pytest.mark.parametrize("accept", ["", "text/plain", "*/*", OPENMETRICS])
def test_either_text_can_be_read_back(accept: str) -> None:
    body, content_type = render(registry=CollectorRegistry(), accept=accept)
    assert body.endswith(b"# EOF\n") is content_type.startswith("application/openmetrics-text")
