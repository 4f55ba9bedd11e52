from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from shared.context import Context, bind, current
from shared.events import EnvelopeError, EventContext, EventContextManager, EventPayload

EVENT: dict[str, Any] = {
    "event_id": "e-1",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "subject": "evt.order.updated",
    "correlation_id": "corr-1",
    "idempotency_key": "k",
    "timestamp": "2026-11-23T10:00:00Z",
    "metadata": {"source_service": "webhook-service", "region": "eu"},
    "payload": {"anything": object()},
}


def test_a_received_event_gives_its_context() -> None:
    assert EventContext.from_event(EVENT) == EventContext(
        event_id="e-1",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        subject="evt.order.updated",
        correlation_id="corr-1",
        timestamp=datetime(2026, 11, 23, 10, tzinfo=UTC),
        source_service="webhook-service",
        idempotency_key="k",
        metadata={"source_service": "webhook-service", "region": "eu"},
    )


@pytest.mark.parametrize("sent", [{"timestamp": None, "metadata": None}, {}])
def test_null_and_missing_fields_are_tolerated(sent: dict[str, Any]) -> None:
    event = {"event_id": "e-1", "subject": "evt.order.updated", **sent}
    before = datetime.now(UTC)
    context = EventContext.from_event(event)
    assert before <= context.timestamp <= datetime.now(UTC)
    assert context.metadata == {}
    assert context.source_service == "unknown"
    assert len(context.trace_id) == 32


def test_what_a_context_cannot_do_without_is_named() -> None:
    with pytest.raises(EnvelopeError, match="lacks event_id, subject"):
        EventContext.from_event({})


def test_a_context_comes_back_from_its_dict() -> None:
    context = EventContext.from_event(EVENT)
    document = context.to_dict()
    assert document["timestamp"] == "2026-11-23T10:00:00+00:00"
    assert document["metadata"] == EVENT["metadata"]
    assert "payload" not in document
    assert EventContext.from_event(document) == context


def test_a_new_context_has_the_ids_of_the_current_one() -> None:
    with bind(Context.start(correlation_id="corr-2")) as bound:
        context = EventContext.create(subject="evt.credit.spent", source_service="credit-service")
    assert context.correlation_id == "corr-2"
    assert context.trace_id == bound.trace.trace_id
    assert UUID(context.event_id).version == 7


def test_given_ids_win() -> None:
    with bind(Context.start(correlation_id="corr-2")):
        context = EventContext.create(
            subject="evt.credit.spent",
            source_service="credit-service",
            correlation_id="mine",
            trace_id="own",
        )
    assert (context.correlation_id, context.trace_id) == ("mine", "own")


def test_a_response_keeps_trace_and_correlation_and_names_its_cause() -> None:
    context = EventContext.from_event(EVENT)
    answer = context.create_response_context(
        "evt.credit.spent", "credit-service", "k-2", {"credits": 3}
    )
    assert (answer.trace_id, answer.correlation_id) == (context.trace_id, context.correlation_id)
    assert answer.event_id != context.event_id
    assert (answer.subject, answer.source_service) == ("evt.credit.spent", "credit-service")
    assert answer.idempotency_key == "k-2"
    assert answer.metadata == {
        "triggered_by": "e-1",
        "original_source": "webhook-service",
        "credits": 3,
    }
    assert answer.to_dict()["metadata"]["source_service"] == "credit-service"


def test_apply_correlation_makes_the_ids_current() -> None:
    with bind(Context.start(tenant_id="t-1")) as before:
        EventContext.from_event(EVENT).apply_correlation()
        after = current()
        assert after is not None
        assert after.correlation_id == "corr-1"
        assert after.trace.trace_id == EVENT["trace_id"]
        assert (after.tenant_id, after.request_id) == ("t-1", before.request_id)
    assert current() is None


class Spent(BaseModel):
    merchant_id: UUID
    credits: int


def test_a_payload_is_sent_whole_whatever_its_type() -> None:
    merchant = UUID(int=7)
    context = EventContext.from_event(EVENT)
    expected = {"merchant_id": str(merchant), "credits": 3}
    for data in (
        {"merchant_id": merchant, "credits": 3},
        Spent(merchant_id=merchant, credits=3),
    ):
        payload = EventPayload(context, data)
        assert payload.to_event_dict() == {**context.to_dict(), "payload": expected}
        assert payload.correlation_id == "corr-1"


def test_a_payload_that_is_no_object_is_refused() -> None:
    with pytest.raises(EnvelopeError, match="payload"):
        EventPayload(EventContext.from_event(EVENT), [1]).to_event_dict()


def test_outcomes_are_logged_with_the_ids(caplog: pytest.LogCaptureFixture) -> None:
    manager = EventContextManager()
    context = manager.extract_context(EVENT)
    error = RuntimeError("boom")
    with caplog.at_level(logging.INFO):
        manager.log_event_completion(context, True, 1.5, additional_data={"name": "n", "orders": 2})
        manager.log_event_completion(context, False, 2.5, error)
    handled, failed = caplog.records
    assert handled.levelname == "INFO"
    expected = {"event_id": "e-1", "correlation_id": "corr-1", "duration_ms": 1.5}
    assert vars(handled) | expected == vars(handled)
    assert vars(handled)["data_name"] == "n"
    assert vars(handled)["orders"] == 2
    assert failed.levelname == "ERROR"
    assert vars(failed)["error"] == "boom"
    assert failed.exc_info is not None
    assert failed.exc_info[1] is error


def test_a_trace_id_may_be_a_uuid() -> None:
    trace_id = UUID("0af76519-16cd-43dd-8448-eb211c80319c")
    context = EventContext.create(subject="evt.a.b", source_service="s", trace_id=trace_id)
    assert context.trace_id == str(trace_id)
    assert context.correlation_id == trace_id.hex
