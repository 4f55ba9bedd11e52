"""The short way from a message to its payload leads where the long one does."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json

from shared.events import Contract, Envelope, EnvelopeError, context_from_message
from shared.messaging import Delivery


class Paid(BaseModel):
    model_config = ConfigDict(strict=True)

    amount: Decimal
    at: datetime
    merchant_id: str | None = None


PAID = Contract("evt.merchant.paid", Paid, version=2)
SENT = Envelope.create(
    PAID,
    Paid(amount=Decimal("9.10"), at=datetime(2025, 1, 1, tzinfo=UTC), merchant_id="ada"),
    source_service="tests",
)


def delivery(body: bytes, headers: dict[str, str] | None = None) -> Delivery:
    return Delivery(PAID.subject, body, headers or {}, "S", 1, 1, datetime.now(UTC))


def changed(**fields: Any) -> bytes:
    document = {**from_json(SENT.encode()), **fields}
    return to_json({name: value for name, value in document.items() if value is not ...})


@pytest.mark.parametrize(
    "body",
    [
        SENT.encode(),
        changed(metadata=None),
        changed(metadata={}),
        changed(metadata={"version": 2}),
        changed(metadata={"version": "3"}),
        changed(timestamp=None),
        changed(correlation_id="not safe"),
        changed(more="is kept"),
        changed(event_id=""),
        changed(event_id=...),
        changed(payload={"amount": "NaN"}),
        changed(payload={"amount": "a lot"}),
        changed(payload=["no object"]),
        b"[]",
        b"no JSON",
        SENT.encode().replace(b'"9.10"', b"NaN"),
        SENT.encode().replace(b'"payload":{', b'"payload":{"not read":NaN,'),
        SENT.encode()[:-1] + b',"more":1}',
        SENT.encode() + b"\n",
        SENT.encode().replace(b'{"event_id"', b'{"payload":1,"event_id"'),
        SENT.encode().replace(b'"metadata":{', b'"metadata":{"a":1,"payload":{"n":1},'),
    ],
)
def test_both_ways_lead_to_the_same(body: bytes) -> None:
    short, long = (_outcome(body, envelope=envelope) for envelope in (False, True))
    assert short == long


def test_a_cloud_event_is_read_as_one() -> None:
    headers, body = SENT.cloudevent_message()
    decoded = PAID.codec.decode(PAID, delivery(body, headers), envelope=False)
    assert decoded.event_id == SENT.event_id
    assert decoded.payload().merchant_id == "ada"


def test_a_plain_message_takes_the_short_way() -> None:
    assert PAID.codec.decode(PAID, delivery(SENT.encode()), envelope=False).envelope is None
    # Another version is read by the contract's steps, and a header may say that it is one.
    for metadata in ({}, {"version": "1"}):
        assert PAID.codec.decode(
            PAID, delivery(changed(metadata=metadata)), envelope=False
        ).envelope


def _outcome(body: bytes, *, envelope: bool) -> object:
    try:
        decoded = PAID.codec.decode(PAID, delivery(body), envelope=envelope)
        payload = decoded.payload()
    except (EnvelopeError, ValidationError) as error:
        return type(error), str(error)
    context = context_from_message(decoded.sent, {}, "tests")
    ids = (context.trace.trace_id, context.correlation_id, context.tenant_id, context.service)
    return decoded.event_id, payload, ids
