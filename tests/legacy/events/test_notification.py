from __future__ import annotations

import re
from datetime import UTC, datetime, tzinfo
from typing import Any
from uuid import UUID

import pydantic
import pytest

from shared.events.notification import (
    SendEmailBulkCommand,
    SendEmailCommand,
    create_bulk_email_command,
    create_send_email_command,
)
from shared.legacy.events import notification as helpers

MERCHANT = UUID("7b3f2a52-54b4-4f0c-9be4-5f0a2f6f6c11")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[datetime]:
    now = [datetime(2026, 11, 23, 10, 59, 59, tzinfo=UTC)]

    class Clock:
        @staticmethod
        def now(zone: tzinfo) -> datetime:
            return now[0].astimezone(zone)

    monkeypatch.setattr(helpers, "datetime", Clock)
    return now


def send(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "merchant_id": MERCHANT,
        "merchant_domain": "teashop.myshopify.com",
        "recipient_email": "owner@teashop.example",
        "notification_type": "low_balance",
        "dynamic_content": {"balance": 3},
        "unsubscribe_token": "t",
        **changes,
    }
    return create_send_email_command(**arguments)


def recipient(**changes: Any) -> dict[str, Any]:
    return {
        "merchant_id": MERCHANT,
        "merchant_domain": "teashop.myshopify.com",
        "email": "owner@teashop.example",
        "unsubscribe_token": "t",
        "dynamic_content": {"a": 1, "b": 2},
        **changes,
    }


def test_a_send_command_is_an_envelope_for_the_notification_service() -> None:
    command = send(correlation_id="corr-1", metadata={"reason": "debit"})
    assert command["subject"] == "cmd.notification.send_email"
    assert command["correlation_id"] == "corr-1"
    assert command["metadata"]["reason"] == "debit"
    payload = SendEmailCommand.from_event_dict(command).data
    assert payload.notification_type == "low_balance"
    assert payload.recipient.merchant_id == MERCHANT
    assert payload.recipient.dynamic_content == {"balance": 3}


def test_one_mail_of_a_type_to_a_recipient_an_hour(clock: list[datetime]) -> None:
    first = send()["idempotency_key"]
    assert re.fullmatch(r"send_[0-9a-f]{16}", first)
    clock[0] = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
    assert send(dynamic_content={"balance": 2}, unsubscribe_token="u")["idempotency_key"] == first
    clock[0] = datetime(2026, 11, 23, 11, 0, 0, tzinfo=UTC)
    assert send()["idempotency_key"] != first
    clock[0] = datetime(2026, 11, 24, 10, 30, 0, tzinfo=UTC)
    assert send()["idempotency_key"] != first


def test_another_merchant_type_or_recipient_is_another_mail(clock: list[datetime]) -> None:
    assert clock
    keys = {
        send()["idempotency_key"],
        send(merchant_id=UUID(int=1))["idempotency_key"],
        send(notification_type="welcome")["idempotency_key"],
        send(recipient_email="other@teashop.example")["idempotency_key"],
    }
    assert len(keys) == 4


def test_the_caller_s_own_key_wins() -> None:
    assert send(idempotency_key="mine")["idempotency_key"] == "mine"
    bulk = create_bulk_email_command("news", [recipient()], idempotency_key="mine")
    assert bulk["idempotency_key"] == "mine"


def test_the_same_bulk_send_has_the_same_key() -> None:
    one, two = recipient(), recipient(email="other@teashop.example")
    first = create_bulk_email_command("news", [one, two])
    assert re.fullmatch(r"bulk_[0-9a-f]{16}", first["idempotency_key"])
    again = recipient(
        merchant_id=str(MERCHANT), unsubscribe_token="another", dynamic_content={"b": 2, "a": 1}
    )
    second = create_bulk_email_command("news", [two, again], correlation_id="c", metadata={"n": 2})
    assert second["idempotency_key"] == first["idempotency_key"]
    assert second["event_id"] != first["event_id"]


def test_another_bulk_send_has_another_key() -> None:
    keys = {
        create_bulk_email_command(kind, recipients)["idempotency_key"]
        for kind, recipients in (
            ("news", [recipient()]),
            ("offer", [recipient()]),
            ("news", []),
            ("news", [recipient(), recipient()]),
            ("news", [recipient(email="other@teashop.example")]),
            ("news", [recipient(merchant_id=UUID(int=1))]),
            ("news", [recipient(dynamic_content={"a": 1})]),
        )
    }
    assert len(keys) == 7


def test_a_bulk_command_is_an_envelope_for_the_notification_service() -> None:
    command = create_bulk_email_command("news", [recipient()], correlation_id="corr-1")
    assert command["subject"] == "cmd.notification.bulk_send"
    payload = SendEmailBulkCommand.from_event_dict(command).data
    assert [each.email for each in payload.recipients] == ["owner@teashop.example"]


def test_an_incomplete_recipient_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="merchant_domain"):
        create_bulk_email_command("news", [{"merchant_id": MERCHANT, "email": "a@b.example"}])
