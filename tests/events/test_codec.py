"""Plain JSON and the envelope, read and written by their codecs."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from pydantic import BaseModel, RootModel, ValidationError

from shared.context import Context, bind
from shared.events import ENVELOPE, JSON, Contract, Envelope, EnvelopeError, context_from_message


class Order(BaseModel):
    order: int
    merchant_id: str | None = None


ORDERS = Contract("orders.*.created", Order, version=2, stream="ORDERS", codec=JSON)
ORDERS.upcast(1, lambda payload: {"order": payload["number"]})


@dataclass
class Message:
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    subject: str = "orders.eu.created"
    stream: str = "ORDERS"
    sequence: int = 7


def test_the_event_id_is_the_message_id_else_its_place() -> None:
    for headers, event_id in (
        ({"Nats-Msg-Id": "m-1"}, "m-1"),
        ({"nats-msg-id": "m-1"}, "m-1"),
        ({}, "ORDERS:7"),
    ):
        decoded = JSON.decode(ORDERS, Message(b'{"order": 1}', headers))
        assert (decoded.event_id, decoded.envelope) == (event_id, None)
        assert decoded.payload() == Order(order=1)


def test_the_context_comes_from_headers_and_the_tenant_from_the_payload_too() -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    message = Message(
        b'{"order": 1, "merchant_id": "ada"}', {"Traceparent": trace, "x-correlation-id": "c-1"}
    )
    decoded = JSON.decode(ORDERS, message)
    context = context_from_message(decoded.sent, message.headers, "view-service")
    assert context.trace.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (context.correlation_id, context.tenant_id) == ("c-1", "ada")
    for body in (b"[]", b"no JSON"):
        sent = JSON.decode(ORDERS, Message(body)).sent
        assert context_from_message(sent, {}, "view-service").tenant_id is None


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b'{"order": "many"}'])
def test_what_does_not_fit_is_told_when_the_payload_is_read(body: bytes) -> None:
    decoded = JSON.decode(ORDERS, Message(body))
    with pytest.raises(ValidationError):
        decoded.payload()


def test_older_versions_are_read_through_their_steps() -> None:
    older = Message(b'{"number": 3}', {"Glam-Schema-Version": "1"})
    assert JSON.decode(ORDERS, older).payload() == Order(order=3)
    with pytest.raises(EnvelopeError, match="not valid JSON"):
        JSON.decode(ORDERS, Message(b"{", {"Glam-Schema-Version": "1"})).payload()


def test_a_payload_need_not_be_an_object() -> None:
    numbers = Contract("numbers.told", RootModel[list[int]], stream="NUMBERS", codec=JSON)
    assert JSON.decode(numbers, Message(b"[1, 2]")).payload().root == [1, 2]


def test_what_is_written_is_the_payload_and_is_read_back() -> None:
    with bind(Context.start(service="shop-service", tenant_id="ada")):
        envelope = Envelope.create(
            ORDERS, Order(order=1), source_service="shop-service", idempotency_key="k"
        )
        headers = envelope.headers()
    assert JSON.encode(envelope) == b'{"order":1,"merchant_id":null}'
    copied = envelope.model_copy(update={"payload": {"order": 2}})
    assert JSON.encode(copied) == b'{"order":2}'
    decoded = JSON.decode(
        ORDERS, Message(JSON.encode(envelope), {**headers, "Nats-Msg-Id": envelope.message_id})
    )
    assert decoded.event_id == "orders.*.created:k"
    assert decoded.payload() == Order(order=1)


def test_fields_are_looked_up_where_the_payload_is() -> None:
    assert JSON.fields(b'{"order": 1}') == {"order": 1}
    assert ENVELOPE.fields(b'{"payload": {"order": 1}}') == {"order": 1}
    for body in (b"[]", b"{}"):
        with pytest.raises(ValueError, match="not an envelope"):
            ENVELOPE.fields(body)
    assert (repr(JSON), repr(ENVELOPE)) == ("JSON", "ENVELOPE")
