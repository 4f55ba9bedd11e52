from __future__ import annotations

from typing import Any

from shared.context import Context, TraceContext, bind
from shared.events import Envelope, context_from_message

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE = TraceContext(TRACE_ID, "b7ad6b7169203331", tracestate="vendor=1")
MERCHANT = "7b3f2a52-54b4-4f0c-9be4-5f0a2f6f6c11"


def envelope(**changes: Any) -> Envelope:
    return Envelope.from_dict(
        {
            "event_id": "e-1",
            "subject": "evt.order.updated",
            "timestamp": None,
            "trace_id": TRACE_ID,
            "correlation_id": "corr-1",
            "metadata": {"version": "1"},
            "payload": {"merchant_id": MERCHANT},
            **changes,
        }
    )


def test_the_headers_say_what_the_envelope_says() -> None:
    assert envelope(idempotency_key="k").headers(TRACE) == {
        "Nats-Msg-Id": "evt.order.updated:k",
        "Content-Type": "application/json",
        "traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01",
        "tracestate": "vendor=1",
        "X-Correlation-ID": "corr-1",
        "Glam-Schema-Version": "1",
        "Glam-Tenant": MERCHANT,
    }


def test_the_current_span_is_the_sender_when_it_is_of_the_same_trace() -> None:
    with bind(Context.start(trace=TRACE)):
        assert envelope().headers()["traceparent"] == TRACE.traceparent


def test_a_span_of_another_trace_does_not_claim_the_envelope() -> None:
    with bind(Context.start(tenant_id="another")):
        headers = envelope(payload={}).headers()
    assert headers["traceparent"].split("-")[1] == TRACE_ID
    assert "Glam-Tenant" not in headers


def test_the_tenant_of_the_context_stands_in_for_a_payload_without_merchant() -> None:
    with bind(Context.start(trace=TRACE, tenant_id=MERCHANT)):
        assert envelope(payload={}).headers()["Glam-Tenant"] == MERCHANT


def test_what_a_header_cannot_carry_stays_in_the_body() -> None:
    headers = envelope(
        correlation_id="a\r\nNats-Rollup: all",
        trace_id="no trace id",
        metadata={"version": "1\r\n"},
        payload={"merchant_id": "x\ny"},
    ).headers()
    assert headers == {"Nats-Msg-Id": "e-1", "Content-Type": "application/json"}


def test_the_receiver_is_in_the_context_of_the_sender() -> None:
    sent = envelope()
    context = context_from_message(sent, sent.headers(TRACE), "credit-service")
    assert context.trace == TRACE
    assert context.correlation_id == "corr-1"
    assert context.tenant_id == MERCHANT
    assert context.service == "credit-service"
    assert context.request_id.startswith("req_")


def test_header_names_are_read_in_any_case() -> None:
    headers = {"Traceparent": TRACE.traceparent, "x-correlation-id": "c-2", "glam-tenant": "t-2"}
    context = context_from_message(envelope(), headers, "credit-service")
    assert context.trace.span_id == TRACE.span_id
    assert (context.correlation_id, context.tenant_id) == ("c-2", "t-2")


def test_without_headers_the_envelope_speaks() -> None:
    context = context_from_message(envelope(), None, "credit-service")
    assert context.trace.trace_id == TRACE_ID
    assert context.correlation_id == "corr-1"
    assert context.tenant_id == MERCHANT


def test_an_old_trace_id_with_dashes_goes_on_as_a_trace() -> None:
    old = envelope(trace_id="0AF76519-16CD-43DD-8448-EB211C80319C")
    assert context_from_message(old, {}, "credit-service").trace.trace_id == TRACE_ID


def test_nonsense_from_outside_is_replaced() -> None:
    context = context_from_message(
        envelope(trace_id="0" * 32, correlation_id="a\nb", payload={"merchant_id": 7}),
        {"traceparent": "00-zz", "X-Correlation-ID": "a b", "Glam-Tenant": "'; drop"},
        "credit-service",
    )
    assert context.trace.trace_id != "0" * 32
    assert context.correlation_id == context.trace.trace_id
    assert context.tenant_id is None
