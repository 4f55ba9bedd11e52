from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from shared.context import Context, TraceContext, bind
from shared.errors import Outcome, ValidationError, outcome_of
from shared.events import Contract, Envelope, EnvelopeError
from shared.events.credit import MERCHANT_CREATED, ORDER_UPDATED, MerchantCreatedPayload
from shared.platform.declared import CONTRACTS
from tests.events.strategies import AWARE, JSON, OBJECTS, PROOF, values

MERCHANT = UUID("7b3f2a52-54b4-4f0c-9be4-5f0a2f6f6c11")
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def document(**changes: Any) -> dict[str, Any]:
    return {
        "event_id": "e-1",
        "subject": "evt.order.updated",
        "timestamp": "2026-11-23T10:00:00+00:00",
        "payload": {},
        **changes,
    }


def merchant() -> MerchantCreatedPayload:
    return MerchantCreatedPayload(
        merchant_id=MERCHANT,
        merchant_domain="teashop.myshopify.com",
        shop_name="Tea",
        contact_email="owner@teashop.example",
        created_at=datetime(2026, 11, 23, 10, tzinfo=UTC),
    )


# --- as it came


_SENT = b'{"event_id":"e","subject":"s","timestamp":"2026-11-23T10:00:00+00:00"'


@pytest.mark.parametrize(
    "body",
    [
        _SENT + b',"payload":{"n": 1.50}}',
        _SENT + b',"payload":{"n": 1.50} }',
        _SENT + b',"payload":{"n": 1.50}}\n',
        _SENT + b',"payload":{"n":2},"more":{"payload":{"n":3}}}',
        b'{"payload":{"n":2},' + _SENT[1:] + b',"metadata":{"a":1,"payload":{"n":3}}}',
        b'{"payload":{"n":2},' + _SENT[1:] + b',"more":[{"a":1,"payload":{"n":3}}]}',
        _SENT + b',"payload":{"n":2},"payload":{"n":3}}',
        _SENT + b',"more":",\\"payload\\":{","payload":{"n":3}}',
        _SENT + b',"more":",","payload":{"n":3}}',
        _SENT + b',"payload":{"n":3,"text":"}},\\"payload\\":{"}}',
        _SENT + b', "payload" : {"n":4}}',
        _SENT + b',"metadata":{"version":"1"},"payload":{"a":[{"payload":{"n":5}}],"n":6}}',
    ],
)
def test_a_payload_is_found_in_its_message_wherever_it_stands(body: bytes) -> None:
    class Counted(BaseModel):
        n: Decimal

    contract = Contract("evt.order.counted", Counted)
    received = Envelope.decode(body)
    assert contract.read(received) == contract.read(Envelope.from_dict(json.loads(body)))
    assert contract.read(received).n == Decimal(str(json.loads(body)["payload"]["n"]))


def test_what_was_received_is_sent_on_byte_for_byte() -> None:
    body = json.dumps(document(extra={"kept": 1}, payload={"a": "\u20ac"}), indent=1).encode()
    assert Envelope.decode(body).encode() == body


@pytest.mark.parametrize("timestamp", [None, "2026-11-23T10:00:00", "2026-11-23T10:00:00+02:00"])
def test_what_was_completed_is_sent_on_complete(timestamp: str | None) -> None:
    received = Envelope.decode(json.dumps(document(timestamp=timestamp)))
    sent_on = json.loads(received.encode())
    assert datetime.fromisoformat(sent_on["timestamp"]) == received.timestamp
    assert Envelope.decode(received.encode()) == received


def test_a_version_from_the_headers_is_sent_on_with_the_envelope() -> None:
    body = json.dumps(document()).encode()
    received = Envelope.from_message(body, {"Glam-Schema-Version": "3"})
    assert Envelope.decode(received.encode()).metadata == {"version": "3"}


def test_a_copy_says_what_it_was_given() -> None:
    received = Envelope.decode(json.dumps(document(payload={"n": 1})).encode())
    changed = received.model_copy(update={"payload": {"n": 2}})
    assert json.loads(changed.encode())["payload"] == {"n": 2}
    assert changed.payload_as_it_came() is None


@pytest.mark.parametrize(
    "options", [{}, {"metadata": {"a": UUID(int=1)}}, {"idempotency_key": "k"}]
)
def test_what_was_created_equals_what_is_received(options: dict[str, Any]) -> None:
    made = Envelope.create(MERCHANT_CREATED, merchant(), source_service="test", **options)
    received = Envelope.decode(made.encode())
    assert made == received
    assert made.model_dump(mode="json") == received.model_dump(mode="json")
    assert made.model_fields_set == received.model_fields_set


# --- round trip


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.subject)
@PROOF
@given(data=st.data())
def test_every_declared_payload_comes_back_equal(contract: Contract[Any], data: Any) -> None:
    payload = data.draw(values(contract.payload))
    sent = Envelope.create(contract, payload, source_service="test")
    received = Envelope.decode(sent.encode())
    assert received == sent
    assert contract.read(received) == payload


@PROOF
@given(
    st.builds(
        document,
        event_id=st.text(min_size=1),
        trace_id=st.none() | st.text(),
        subject=st.text(min_size=1),
        correlation_id=st.none() | st.text(),
        idempotency_key=st.none() | st.text(),
        timestamp=AWARE,
        metadata=OBJECTS,
        payload=OBJECTS,
        a_field_of_tomorrow=JSON,
    )
)
def test_any_envelope_comes_back_equal(fields: dict[str, Any]) -> None:
    envelope = Envelope.from_dict(fields)
    assert Envelope.decode(envelope.encode()) == envelope
    assert Envelope.from_dict(envelope.to_dict()) == envelope
    assert envelope.timestamp == fields["timestamp"]
    assert envelope.to_dict()["a_field_of_tomorrow"] == fields["a_field_of_tomorrow"]
    assert json.loads(envelope.encode()) == envelope.to_dict()


# --- the strict writer


class Colour(Enum):
    RED = "red"


class Inner(BaseModel):
    price: Decimal


@dataclass
class Plain:
    at: datetime


def test_python_values_in_a_payload_become_json() -> None:
    envelope = Envelope.from_dict(
        document(
            payload={
                "id": MERCHANT,
                "at": datetime(2026, 11, 23, tzinfo=UTC),
                "price": Decimal("1.10"),
                "colour": Colour.RED,
                "model": Inner(price=Decimal("0.10")),
                "plain": Plain(at=datetime(2026, 11, 23, tzinfo=UTC)),
                "several": (1, 2),
                MERCHANT: "key",
            }
        )
    )
    assert envelope.payload == {
        "id": str(MERCHANT),
        "at": "2026-11-23T00:00:00Z",
        "price": "1.10",
        "colour": "red",
        "model": {"price": "0.10"},
        "plain": {"at": "2026-11-23T00:00:00Z"},
        "several": [1, 2],
        str(MERCHANT): "key",
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", b"\xff", object()])
def test_what_json_cannot_say_is_refused_by_the_writer(value: object) -> None:
    with pytest.raises(EnvelopeError):
        Envelope.from_dict(document(payload={"value": value}))


class Measured(BaseModel):
    seconds: float


def test_a_payload_that_its_contract_could_not_read_back_is_refused_by_the_writer() -> None:
    # pydantic writes the NaN of a model as null, which is no float for the reader.
    with pytest.raises(EnvelopeError, match=r"payload of evt\.catalog\.timed: seconds") as caught:
        Envelope.create(
            Contract("evt.catalog.timed", Measured),
            Measured(seconds=float("nan")),
            source_service="catalog-service",
        )
    assert caught.value.details["invalid"][0]["field"] == "seconds"


class Strict(BaseModel):
    model_config = pydantic.ConfigDict(
        strict=True, ser_json_bytes="base64", val_json_bytes="base64"
    )

    id: UUID
    blob: bytes
    items: tuple[int, ...]


def test_a_strict_payload_is_read_as_json() -> None:
    contract = Contract("evt.catalog.strict", Strict)
    payload = Strict(id=MERCHANT, blob=b"\xff\x00", items=(1, 2))
    envelope = Envelope.create(contract, payload, source_service="catalog-service")
    assert contract.read(Envelope.decode(envelope.encode())) == payload


def test_a_created_envelope_says_where_it_comes_from() -> None:
    trace = TraceContext(TRACE_ID, "b7ad6b7169203331")
    with bind(Context.start(trace=trace, correlation_id="corr-1")):
        envelope = Envelope.create(
            MERCHANT_CREATED,
            merchant(),
            source_service="webhook-service",
            idempotency_key="hook-1",
            metadata={"topic": "app/installed", "source_service": "someone-else"},
        )
    assert envelope.subject == "evt.merchant.created"
    assert envelope.trace_id == TRACE_ID
    assert envelope.correlation_id == "corr-1"
    assert envelope.idempotency_key == "hook-1"
    assert envelope.metadata == {
        "topic": "app/installed",
        "source_service": "webhook-service",
        "version": "1",
    }
    assert UUID(envelope.event_id).version == 7
    assert envelope.timestamp.utcoffset() == timedelta(0)


def test_outside_of_any_context_a_trace_begins() -> None:
    envelope = Envelope.create(MERCHANT_CREATED, merchant(), source_service="webhook-service")
    assert envelope.trace_id is not None
    assert len(envelope.trace_id) == 32
    assert envelope.correlation_id == envelope.trace_id


def test_an_envelope_cannot_be_changed() -> None:
    envelope = Envelope.from_dict(document())
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        envelope.subject = "evt.order.deleted"  # type: ignore[misc]


def test_the_timestamp_is_written_as_every_python_reads_it() -> None:
    plus_one = timezone(timedelta(hours=1))
    envelope = Envelope.from_dict(document(timestamp=datetime(2026, 11, 23, 11, tzinfo=plus_one)))
    assert envelope.to_dict()["timestamp"] == "2026-11-23T10:00:00+00:00"


# --- the tolerant reader


def test_unknown_fields_are_kept() -> None:
    envelope = Envelope.decode(json.dumps(document(partition=3, metadata={"region": "eu"})))
    assert envelope.to_dict()["partition"] == 3
    assert envelope.metadata == {"region": "eu"}
    assert json.loads(envelope.encode())["partition"] == 3


def test_null_timestamp_and_metadata_are_read() -> None:
    before = datetime.now(UTC)
    envelope = Envelope.decode(json.dumps(document(timestamp=None, metadata=None)))
    assert before <= envelope.timestamp <= datetime.now(UTC)
    assert envelope.metadata == {}


def test_a_timestamp_without_offset_is_utc() -> None:
    envelope = Envelope.decode(json.dumps(document(timestamp="2026-11-23T10:00:00")))
    assert envelope.timestamp == datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.mark.parametrize("field", ["event_id", "subject", "timestamp", "payload"])
def test_a_missing_field_is_named(field: str) -> None:
    body = document()
    del body[field]
    with pytest.raises(EnvelopeError, match=f"envelope lacks {field}") as caught:
        Envelope.decode(json.dumps(body))
    assert caught.value.details == {"missing": [field], "invalid": []}


def test_an_invalid_field_is_named_but_not_quoted() -> None:
    with pytest.raises(EnvelopeError, match="payload: ") as caught:
        Envelope.decode(json.dumps(document(payload="card 4242")))
    assert [fault["field"] for fault in caught.value.details["invalid"]] == ["payload"]
    assert "4242" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[]", b"null", b'"text"', b"[" * 10_000, b'{"a": NaN}']
)
def test_a_body_that_is_no_json_object_is_an_envelope_error(body: bytes) -> None:
    with pytest.raises(EnvelopeError, match="JSON"):
        Envelope.decode(body)


def test_an_envelope_error_goes_to_the_dead_letters() -> None:
    assert issubclass(EnvelopeError, ValidationError)
    assert outcome_of(EnvelopeError("no envelope")) is Outcome.DEAD_LETTER


# --- the message id


def test_the_message_id_is_the_key_within_its_subject() -> None:
    first = Envelope.from_dict(document(idempotency_key="k"))
    other = Envelope.from_dict(document(idempotency_key="k", subject="evt.order.deleted"))
    assert first.message_id == "evt.order.updated:k"
    assert other.message_id == "evt.order.deleted:k"


def test_without_a_key_the_message_id_is_the_event_id() -> None:
    assert Envelope.from_dict(document()).message_id == "e-1"
    assert Envelope.from_dict(document(idempotency_key="")).message_id == "e-1"


@PROOF
@given(st.text(min_size=1))
def test_a_message_id_fits_into_a_header(key: str) -> None:
    message_id = Envelope.from_dict(document(idempotency_key=key)).message_id
    assert message_id.isascii()
    assert message_id.isprintable()
    assert " " not in message_id
    assert len(message_id) <= 256


def test_keys_that_do_not_fit_stay_different() -> None:
    keys = ["a b", "a  b", "a\nb", "a\r\nb", "ä b", "x" * 300, "x" * 301]
    assert len({Envelope.from_dict(document(idempotency_key=key)).message_id for key in keys}) == 7


def test_the_order_says_what_a_debit_needs() -> None:
    assert set(ORDER_UPDATED.payload.model_fields) >= {
        "merchant_id",
        "merchant_domain",
        "order_id",
        "order_name",
        "updated_at",
        "currency",
        "lines",
        "cancelled_at",
    }


def test_an_order_without_an_offset_in_its_time_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="timezone"):
        ORDER_UPDATED.payload(
            merchant_id=MERCHANT,
            merchant_domain="teashop.myshopify.com",
            order_id="1",
            order_name="#1001",
            currency="EUR",
            lines=[],
            updated_at=datetime(2026, 11, 23),  # noqa: DTZ001
        )
