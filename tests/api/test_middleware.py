"""The names of the first design."""

from __future__ import annotations

import uuid
from typing import Any

import prometheus_client
import pytest
from fastapi import FastAPI

import shared.api
import shared.metrics
from shared.api import APIMiddleware, Edge, TracingMiddleware, dependencies, setup_middleware
from shared.metrics import middleware as metrics_middleware


@pytest.mark.parametrize("cls", [APIMiddleware, TracingMiddleware])
async def test_the_old_classes_are_the_edge(client: Any, cls: Any) -> None:
    app = FastAPI()
    app.add_middleware(cls)
    async with client(app) as http:
        answer = await http.get("/nothing")
    assert issubclass(cls, Edge)
    assert answer.headers["X-Service-Name"] == "glam-service"


async def test_setup_serves_a_services_own_metrics_too(client: Any) -> None:
    service = f"s{uuid.uuid4().hex}"
    own = prometheus_client.Counter(f"{service}_orders", "Orders.")
    own.inc()
    app = FastAPI(exception_handlers={})
    setup_middleware(app, service_name=service, enable_metrics=True, metrics_path="/metrics")
    async with client(app) as http:
        await http.get("/nothing")
        text = (await http.get("/metrics")).text
    assert f"{service}_orders_total 1.0" in text
    assert (
        f'http_requests_total{{endpoint="unmatched",method="GET",service="{service}",status="404"}}'
        in text
    )


async def test_metrics_can_be_left_out(client: Any) -> None:
    app = FastAPI()
    setup_middleware(app, service_name="quiet", enable_tracing=False, enable_metrics=False)
    async with client(app) as http:
        assert (await http.get("/metrics")).status_code == 404


async def test_the_old_metrics_route_can_be_added_by_hand(client: Any) -> None:
    app = FastAPI()
    app.get("/own-metrics")(shared.metrics.metrics_endpoint)
    app.add_middleware(shared.metrics.PrometheusMiddleware, service_name="by-hand")
    async with client(app) as http:
        await http.get("/nothing")
        text = (await http.get("/own-metrics")).text
    assert 'endpoint="unmatched",method="GET",service="by-hand",status="404"' in text
    assert 'http_requests_in_progress{service="by-hand"} 1.0' in text


def test_every_promised_name_is_there() -> None:
    for module in (shared.api, metrics_middleware, dependencies):
        assert list(module.__all__) == sorted(module.__all__, key=_order)
        for name in module.__all__:
            assert hasattr(module, name)


def _order(name: str) -> tuple[int, str]:
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, name
