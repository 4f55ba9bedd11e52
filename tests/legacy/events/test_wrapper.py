from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from shared.context import Context, bind
from shared.events import Envelope, EventContext, EventWrapper, catalog, notification
from shared.events.catalog import CatalogSyncFailedEvent, CatalogSyncStartedEvent
from shared.events.notification import Recipient, SendEmailCommand, SendEmailCommandPayload
from tests.events.strategies import JSON, PROOF, values

WRAPPERS: list[type[EventWrapper[Any]]] = [
    value
    for leaf in (catalog, notification)
    for value in vars(leaf).values()
    if isinstance(value, type)
    and issubclass(value, EventWrapper)
    and "[" not in value.__name__
    and value is not EventWrapper
]
TEXT = st.text(min_size=1)
MERCHANT = UUID("7b3f2a52-54b4-4f0c-9be4-5f0a2f6f6c11")
RECIPIENT = Recipient(
    merchant_id=MERCHANT,
    merchant_domain="teashop.myshopify.com",
    email="owner@teashop.example",
    unsubscribe_token="t",
)


def test_no_wrapper_is_forgotten() -> None:
    assert len(WRAPPERS) == 16


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda wrapper: wrapper.__name__)
@PROOF
@given(data=st.data())
def test_every_wrapper_comes_back_equal(wrapper: type[EventWrapper[Any]], data: Any) -> None:
    event = data.draw(values(wrapper, subject=TEXT, event_id=TEXT))
    sent = event.to_event_dict()
    envelope = Envelope.from_dict(sent)
    assert envelope.to_dict() == sent
    assert wrapper.from_event_dict(Envelope.decode(envelope.encode()).to_dict()) == event


@PROOF
@given(st.dictionaries(st.text(), JSON))
def test_a_dict_payload_is_not_lost(data: dict[str, Any]) -> None:
    untyped: EventWrapper[Any] = EventWrapper(subject="evt.credit.spent", data=data)
    assert untyped.to_event_dict()["payload"] == data
    assert CatalogSyncStartedEvent(data=data).to_event_dict()["payload"] == data


class Spent(BaseModel):
    merchant_id: UUID


def test_a_model_payload_is_sent_with_all_its_fields() -> None:
    untyped: EventWrapper[Any] = EventWrapper(
        subject="evt.credit.spent", data=Spent(merchant_id=MERCHANT)
    )
    assert untyped.to_event_dict()["payload"] == {"merchant_id": str(MERCHANT)}


def test_uuids_in_an_open_payload_become_json() -> None:
    event = CatalogSyncStartedEvent(data={"merchant_id": MERCHANT})
    assert event.to_event_dict()["payload"] == {"merchant_id": str(MERCHANT)}


def test_missing_ids_are_those_of_the_context_and_stay() -> None:
    event = CatalogSyncStartedEvent()
    with bind(Context.start(correlation_id="corr-1", service="catalog-service")) as context:
        first = event.to_event_dict()
    assert first["trace_id"] == context.trace.trace_id
    assert first["correlation_id"] == "corr-1"
    assert first["metadata"] == {"source_service": "catalog-service"}
    assert event.to_event_dict() == first


def test_a_wrapper_is_the_event_its_context_describes() -> None:
    context = EventContext.create(
        subject="evt.order.updated",
        source_service="webhook-service",
        idempotency_key="k",
        metadata={"region": "eu"},
    )
    command = SendEmailCommand.create_from_context(context, "low_balance", RECIPIENT)
    sent = command.to_event_dict()
    assert sent["subject"] == "cmd.notification.send_email"
    assert {name: sent[name] for name in ("event_id", "trace_id", "idempotency_key")} == {
        "event_id": context.event_id,
        "trace_id": context.trace_id,
        "idempotency_key": "k",
    }
    assert sent["metadata"] == {"region": "eu", "source_service": "webhook-service"}
    assert command.data == SendEmailCommandPayload(
        notification_type="low_balance", recipient=RECIPIENT
    )


def test_a_subject_is_given_or_the_wrapper_s_own_or_the_context_s() -> None:
    context = EventContext.create(subject="evt.credit.spent", source_service="credit-service")
    data = Spent(merchant_id=MERCHANT)
    assert EventWrapper[Spent].from_context(context, data).subject == "evt.credit.spent"
    assert EventWrapper[Spent].from_context(context, data, "evt.credit.x").subject == "evt.credit.x"
    assert CatalogSyncStartedEvent.from_context(context, {}).subject == "evt.catalog.sync_started"


def test_fields_of_a_subclass_stand_beside_the_payload() -> None:
    sent = CatalogSyncFailedEvent(error_message="no connection").to_event_dict()
    assert sent["error_message"] == "no connection"
    assert sent["payload"] == {}
    assert CatalogSyncFailedEvent.from_event_dict(sent).error_message == "no connection"
