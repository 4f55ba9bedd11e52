from __future__ import annotations

from typing import Any

import pytest

from shared.api import (
    add_correlation_header,
    add_correlation_to_event,
    extract_correlation_from_event,
    get_correlation_context,
    get_trace_context,
    outgoing_headers,
    set_correlation_context,
    set_trace_context,
)
from shared.context import Context, TraceContext, bind, current

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_outside_of_a_request_there_is_nothing_to_carry() -> None:
    assert get_correlation_context() is None
    assert get_trace_context() is None
    assert outgoing_headers() == {}
    assert add_correlation_header({"A": "1"}) == {"A": "1"}
    assert add_correlation_to_event({"a": 1}) == {"a": 1}


def test_headers_carry_correlation_and_trace_on() -> None:
    trace = TraceContext.parse(f"00-{TRACE}-b7ad6b7169203331-01", "vendor=1")
    headers = {"Accept": "*/*"}
    with bind(Context.start(correlation_id="c-1", trace=trace)):
        assert add_correlation_header(headers) is headers
    assert headers == {
        "Accept": "*/*",
        "X-Correlation-ID": "c-1",
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
    }


def test_an_event_gets_the_ids_it_lacks() -> None:
    with bind(Context.start(correlation_id="c-1")) as context:
        assert add_correlation_to_event({"correlation_id": None}) == {
            "correlation_id": "c-1",
            "trace_id": context.trace.trace_id,
        }
        assert add_correlation_to_event({"correlation_id": "own"})["correlation_id"] == "own"


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"correlation_id": "c"}, "c"),
        ({"correlation_id": None, "metadata": {"correlation_id": "m"}}, "m"),
        ({"metadata": None}, None),
        ({}, None),
    ],
)
def test_an_events_correlation_is_found(event: dict[str, Any], expected: str | None) -> None:
    assert extract_correlation_from_event(event) == expected


def test_setting_changes_one_id_of_the_current_work() -> None:
    with bind(Context.start(request_id="r-1", correlation_id="c-1")) as before:
        set_correlation_context("c-2")
        assert get_correlation_context() == "c-2"
        set_trace_context("0af76519-16cd-43dd-8448-eb211c80319c")
        assert get_trace_context() == TRACE
        after = current()
        assert after is not None
        assert (after.request_id, after.correlation_id) == ("r-1", "c-2")
        set_correlation_context("bad\r\nid")
        assert get_correlation_context() == TRACE
        set_trace_context(None)
        assert get_trace_context() not in {None, TRACE, before.trace.trace_id}


def test_setting_outside_of_a_request_starts_one() -> None:
    with bind(Context.start()):
        pass
    from contextvars import copy_context

    def alone() -> tuple[str | None, str | None]:
        set_correlation_context("c-1")
        return get_correlation_context(), get_trace_context()

    correlation, trace = copy_context().run(alone)
    assert correlation == "c-1"
    assert trace is not None
    assert get_correlation_context() is None
