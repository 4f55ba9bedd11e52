from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.context import Context, TraceContext, bind, current
from shared.logging import JsonFormatter
from shared.tracing import record_span, span


class Recorded(logging.Handler):
    """The spans recorded since the test began, as the log file would hold them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter("credit-service", environment="prod"))
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def recorded(caplog: pytest.LogCaptureFixture) -> Recorded:
    caplog.set_level(logging.INFO, logger="shared.tracing")
    handler = Recorded()
    logger = logging.getLogger("shared.tracing")
    logger.addHandler(handler)
    return handler


@pytest.fixture(autouse=True)
def _as_it_was() -> Any:
    logger = logging.getLogger("shared.tracing")
    before = list(logger.handlers)
    yield
    logger.handlers[:] = before


def test_a_span_is_recorded_once_with_its_place_in_the_trace(recorded: Recorded) -> None:
    context = Context.start(request_id="req_1", correlation_id="corr-1", user_id="u")
    before = datetime.now(UTC)
    with bind(context), span("debit", kind="client", merchant="m") as active:
        active.set(amount=5, merchant="n")
        inside = current()
    (line,) = recorded.lines
    assert (
        line.items()
        >= {
            "span": "debit",
            "kind": "client",
            "trace_id": context.trace.trace_id,
            "span_id": active.context.span_id,
            "parent_span_id": context.trace.span_id,
            "request_id": "req_1",
            "correlation_id": "corr-1",
            "logger": "shared.tracing",
            "level": "INFO",
        }.items()
    )
    assert line["attributes"] == {"merchant": "n", "amount": 5}
    assert "error" not in line
    assert before <= datetime.fromisoformat(line["started"]) <= datetime.now(UTC)
    assert line["duration_ms"] >= 0
    assert inside is not None
    assert inside.trace == active.context
    assert (inside.request_id, inside.user_id) == ("req_1", "u")


def test_inner_spans_belong_under_outer_ones(recorded: Recorded) -> None:
    with span("outer") as outer:
        with span("first") as first:
            pass
        with span("second"), span("deep"):
            pass
    deep, second = recorded.lines[1], recorded.lines[2]
    assert [line["span"] for line in recorded.lines] == ["first", "deep", "second", "outer"]
    assert recorded.lines[3]["parent_span_id"] is None
    assert first.parent_span_id == second["parent_span_id"] == outer.context.span_id
    assert deep["parent_span_id"] == second["span_id"]
    assert {line["trace_id"] for line in recorded.lines} == {outer.context.trace_id}
    assert len({line["span_id"] for line in recorded.lines}) == 4
    assert current() is None


def test_the_caller_s_span_may_be_named(recorded: Recorded) -> None:
    parent = TraceContext("a" * 32, "b" * 16, flags=0, tracestate="v=1")
    with bind(Context.start(correlation_id="corr-1")), span("handle", parent=parent) as active:
        inside = current()
    assert active.context.tracestate == "v=1"
    assert inside is not None
    assert inside.correlation_id == "corr-1"
    (line,) = recorded.lines  # written although the caller's flags do not say sampled
    assert (line["trace_id"], line["parent_span_id"]) == ("a" * 32, "b" * 16)


def test_an_exception_is_named_and_goes_on(recorded: Recorded) -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    for error in (ValueError("connect nats://u:hunter2@n"), KeyError(), MuteError()):
        with pytest.raises(type(error)), span("fails"):
            raise error
    errors = [line["error"] for line in recorded.lines]
    assert errors[0] == "ValueError: connect nats://u:**********@n"
    assert errors[1] == "KeyError"
    assert errors[2].endswith("MuteError")


async def test_cancellation_is_recorded_and_goes_on(recorded: Recorded) -> None:
    started = asyncio.Event()

    async def work() -> None:
        with span("slow"):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorded.lines[0]["error"] == "CancelledError"


async def test_spans_of_concurrent_tasks_do_not_mix(recorded: Recorded) -> None:
    arrived = asyncio.Barrier(20)

    async def work(number: int) -> None:
        with span("outer", number=number) as outer:
            await arrived.wait()
            with span("inner", number=number) as inner:
                await arrived.wait()
            assert inner.parent_span_id == outer.context.span_id
            assert inner.context.trace_id == outer.context.trace_id

    await asyncio.gather(*(work(number) for number in range(20)))
    traces: dict[str, set[int]] = {}
    for line in recorded.lines:
        traces.setdefault(line["trace_id"], set()).add(line["attributes"]["number"])
    assert sorted(traces.values(), key=min) == [{number} for number in range(20)]


def test_attributes_may_be_named_like_a_span_s_own_parts(recorded: Recorded) -> None:
    with span("any", error="e", started="s") as active:
        active.set(name="n", kind="k", context="c", trace_id="t")
    expected = {"error": "e", "started": "s", "name": "n", "kind": "k"}
    assert recorded.lines[0]["attributes"] == {**expected, "context": "c", "trace_id": "t"}
    assert "error" not in recorded.lines[0]


def test_a_span_measured_elsewhere_can_be_recorded(recorded: Recorded) -> None:
    started = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    record_span(
        name="relay",
        kind="producer",
        context=TraceContext("a" * 32, "b" * 16),
        parent_span_id="c" * 16,
        started=started,
        duration_seconds=timedelta(milliseconds=1.5).total_seconds(),
        error="gone",
        subject="evt.order.updated",
    )
    (line,) = recorded.lines
    assert (
        line.items()
        >= {
            "span": "relay",
            "kind": "producer",
            "span_id": "b" * 16,
            "parent_span_id": "c" * 16,
            "started": "2026-01-02T03:04:05+00:00",
            "duration_ms": 1.5,
            "error": "gone",
        }.items()
    )
    assert line["attributes"] == {"subject": "evt.order.updated"}
