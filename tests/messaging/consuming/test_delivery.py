from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shared.messaging import Delivery, Subscription
from shared.messaging.consuming.delivery import AckSubject
from shared.messaging.consuming.in_flight import InFlightMessage

NUMBERS = "3.41.7.1767323045123456789.12"
READ = AckSubject("ORDERS", "credit", 3, 41, 7, 1767323045123456789, 12)


@pytest.mark.parametrize(
    "reply",
    [
        f"$JS.ACK.ORDERS.credit.{NUMBERS}",
        f"$JS.ACK._.HASH.ORDERS.credit.{NUMBERS}",
        f"$JS.ACK.hub.HASH.ORDERS.credit.{NUMBERS}.random",
    ],
)
def test_both_forms_of_the_ack_subject_are_read(reply: str) -> None:
    ack = AckSubject.parse(reply)
    assert ack == READ


def test_the_time_it_was_stored_is_told_to_the_microsecond() -> None:
    delivery = InFlightMessage("evt.a.b", b"", {}, READ, "")
    assert delivery.published_at == datetime(2026, 1, 2, 3, 4, 5, 123456, UTC)
    assert delivery.stored_at_seconds == pytest.approx(delivery.published_at.timestamp())


@pytest.mark.parametrize("reply", ["", "_INBOX.x", "$JS.ACK.a.b", f"$JS.API.S.c.{NUMBERS}"])
def test_anything_else_is_no_ack_subject(reply: str) -> None:
    with pytest.raises(ValueError, match="not a JetStream delivery"):
        AckSubject.parse(reply)


async def _handler(_: Delivery) -> None: ...


def test_the_stream_follows_from_the_subject() -> None:
    assert Subscription("evt.invoice.paid", "credit", _handler).stream == "INVOICE"
    assert Subscription("cmd.notification.>", "mail", _handler).stream == "NOTIFICATION"


@pytest.mark.parametrize("durable", ["", "a.b", "a b", "a*", "a>", "a/b"])
def test_a_durable_that_cannot_be_a_token_is_refused(durable: str) -> None:
    with pytest.raises(ValueError, match="not the name of a durable consumer"):
        Subscription("evt.order.updated", durable, _handler)


def test_a_subject_of_no_stream_needs_the_stream() -> None:
    with pytest.raises(ValueError, match="no stream holds"):
        Subscription("orders.created", "credit", _handler)
    assert Subscription("orders.created", "credit", _handler, stream="OWN").stream == "OWN"


def test_concurrency_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="concurrency"):
        Subscription("evt.order.updated", "credit", _handler, concurrency=0)
