"""Envelopes as CloudEvents 1.0, in both modes."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import Envelope, EnvelopeError
from tests.events.strategies import AWARE, OBJECTS, PROOF

ENVELOPE = Envelope.from_dict(
    {
        "event_id": "e-1",
        "subject": "evt.order.updated",
        "timestamp": "2026-11-23T10:00:00+00:00",
        "metadata": {"source_service": "webhook-service", "version": "1"},
        "payload": {"title": "Tee für zwei"},
        "partition": 3,
    }
)


def test_a_structured_event_has_what_the_specification_asks_for() -> None:
    event = ENVELOPE.to_cloudevent()
    required = {name: event[name] for name in ("specversion", "id", "source", "type")}
    assert required == {
        "specversion": "1.0",
        "id": "e-1",
        "source": "webhook-service",
        "type": "evt.order.updated",
    }
    assert event["time"] == "2026-11-23T10:00:00+00:00"
    assert event["data"] == {"title": "Tee für zwei"}
    assert all(name.isalnum() and name == name.lower() for name in event)
    headers, body = ENVELOPE.cloudevent_message("structured")
    assert headers["Content-Type"] == "application/cloudevents+json"
    assert json.loads(body) == event


def test_a_binary_event_has_its_attributes_in_headers_and_the_payload_as_body() -> None:
    headers, body = ENVELOPE.cloudevent_message()
    assert json.loads(body) == ENVELOPE.payload
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-type"] == "evt.order.updated"
    assert headers["ce-datacontenttype"] == "application/json"
    assert headers["ce-time"] == "2026-11-23T10:00:00+00:00"
    assert headers["Nats-Msg-Id"] == ENVELOPE.message_id
    assert all(value.isascii() and " " not in value for value in headers.values())


@pytest.mark.parametrize("mode", ["binary", "structured"])
@PROOF
@given(
    fields=st.fixed_dictionaries(
        {
            "event_id": st.text(min_size=1),
            "subject": st.text(min_size=1),
            "timestamp": AWARE,
            "payload": OBJECTS,
            "metadata": OBJECTS.map(lambda found: {**found, "source_service": "a b/ü%20"}),
            "correlation_id": st.none() | st.text(min_size=1),
            "a_field_of_tomorrow": OBJECTS,
        }
    )
)
def test_either_mode_comes_back_equal(
    mode: Literal["binary", "structured"], fields: dict[str, Any]
) -> None:
    envelope = Envelope.from_dict(fields)
    headers, body = envelope.cloudevent_message(mode)
    assert Envelope.from_message(body, headers) == envelope


def test_the_envelopes_own_form_is_read_as_before() -> None:
    assert Envelope.from_message(ENVELOPE.encode(), ENVELOPE.headers()) == ENVELOPE


def test_an_event_of_somebody_else_is_read() -> None:
    envelope = Envelope.from_message(
        b'{"n": 1}',
        {"CE-SpecVersion": "1.0", "ce-id": "1", "ce-source": "/a%20b", "ce-type": "t", "ce-x": "y"},
    )
    assert (envelope.event_id, envelope.subject, envelope.payload) == ("1", "t", {"n": 1})
    assert envelope.to_dict()["x"] == "y"


@pytest.mark.parametrize(
    ("body", "headers", "told"),
    [
        (b"{}", {"ce-specversion": "1.0", "ce-id": "1"}, "lacks source, type"),
        (
            b"{}",
            {"ce-specversion": "0.3", "ce-id": "1", "ce-source": "s", "ce-type": "t"},
            "of version 0.3",
        ),
        (b"[]", {"Content-Type": "application/cloudevents+json"}, "JSON object"),
        (b"{", {"Content-Type": "application/cloudevents"}, "JSON"),
    ],
)
def test_a_bad_event_is_an_envelope_error(body: bytes, headers: dict[str, str], told: str) -> None:
    with pytest.raises(EnvelopeError, match=told):
        Envelope.from_message(body, headers)
