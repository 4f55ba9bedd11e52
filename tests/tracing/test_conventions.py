"""Our spans in OpenTelemetry's words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from opentelemetry.semconv.attributes import (
    client_attributes,
    deployment_attributes,
    error_attributes,
    http_attributes,
    network_attributes,
    service_attributes,
    url_attributes,
)
from opentelemetry.semconv.schemas import Schemas

from shared.context import TraceContext
from shared.tracing import FinishedSpan, Kind, conventions
from shared.tracing.conventions import attributes_of, error_type, name_of, resource_of, says_enough


def finished(
    name: str, kind: Kind, *, error: str | None = None, **attributes: object
) -> FinishedSpan:
    return FinishedSpan(
        name, kind, TraceContext.start(), None, datetime.now(UTC), 0.1, error, attributes
    )


def request(method: str, route: str) -> FinishedSpan:
    return finished(f"{method} {route}", "server", method=method, route=route)


def test_the_names_are_those_of_the_conventions() -> None:
    assert Schemas.V1_44_0.value == conventions.SCHEMA_URL
    stable = {
        value
        for module in (
            client_attributes,
            deployment_attributes,
            error_attributes,
            http_attributes,
            network_attributes,
            service_attributes,
            url_attributes,
        )
        for value in vars(module).values()
        if isinstance(value, str)
    }
    found = attributes_of(
        finished(
            "WEBSOCKET /a",
            "server",
            method="WEBSOCKET",
            route="/a",
            path="/a",
            status=500,
            client="::1",
            error="HTTP 500",
        )
    )
    assert set(found) | set(resource_of("s", "1", "dev")) <= stable


@pytest.mark.parametrize(
    ("span", "name", "expected"),
    [
        (
            request("GET", "/orders/{id}"),
            "GET /orders/{id}",
            {"http.request.method": "GET", "http.route": "/orders/{id}"},
        ),
        (request("GET", "unmatched"), "GET", {"http.request.method": "GET"}),
        (
            request("BREW", "/pot"),
            "HTTP /pot",
            {
                "http.request.method": "_OTHER",
                "http.request.method_original": "BREW",
                "http.route": "/pot",
            },
        ),
        (
            request("WEBSOCKET", "/live"),
            "GET /live",
            {
                "http.request.method": "GET",
                "http.route": "/live",
                "network.protocol.name": "websocket",
            },
        ),
        (
            finished("GET billing", "client", upstream="billing", path="/a", attempt=3, status=200),
            "GET billing",
            {
                "http.request.method": "GET",
                "http.request.resend_count": 2,
                "http.response.status_code": 200,
                "service.peer.name": "billing",
                "url.path": "/a",
            },
        ),
        (finished("send mail", "client", server="smtp:a"), "send mail", {"server": "smtp:a"}),
        (finished("count", "internal", status="full"), "count", {"status": "full"}),
        (finished("serve", "server", status="odd"), "serve", {"status": "odd"}),
        (finished("produce tea", "producer", leaves=3), "produce tea", {"leaves": 3}),
    ],
)
def test_a_span_is_named_and_described_by_the_conventions_where_they_have_a_word(
    span: FinishedSpan, name: str, expected: dict[str, object]
) -> None:
    assert name_of(span) == name
    assert attributes_of(span) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("ValueError", "ValueError"),
        ("ValueError: no such order: 17", "ValueError"),
        ("Outer.Inner: x", "Outer.Inner"),
        ("HTTP 503", "503"),
        ("client disconnected", "_OTHER"),
        ("order 17 is gone", "_OTHER"),
        ("", "_OTHER"),
    ],
)
def test_the_class_of_an_error_has_few_values(error: str, expected: str) -> None:
    assert error_type(error) == expected
    assert attributes_of(finished("a", "internal", error=error)) == {"error.type": expected}


def test_only_a_status_needs_no_words() -> None:
    assert says_enough("HTTP 500")
    assert not says_enough("HTTP 500: why")
    assert not says_enough("ValueError: x")


def test_environments_are_written_out() -> None:
    names = [
        resource_of("s", "1", e)["deployment.environment.name"] for e in ("dev", "staging", "prod")
    ]
    assert names == ["development", "staging", "production"]
