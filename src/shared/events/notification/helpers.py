"""Ready-made send commands whose idempotency key follows from what they say."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from pydantic_core import to_jsonable_python

from shared.events.notification.types import (
    Recipient,
    SendEmailBulkCommand,
    SendEmailBulkCommandPayload,
    SendEmailCommand,
    SendEmailCommandPayload,
)

if TYPE_CHECKING:
    from uuid import UUID


def create_send_email_command(
    merchant_id: UUID,
    merchant_domain: str,
    recipient_email: str,
    notification_type: str,
    dynamic_content: dict[str, Any],
    unsubscribe_token: str,
    idempotency_key: str | None = None,
    correlation_id: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the event dict of a command to send one mail.

    Without `idempotency_key` the key is made of merchant, type, recipient and the hour in UTC: a
    merchant sends one mail of a type to a recipient an hour, whatever it says.
    """
    now = datetime.now(UTC)
    recipient = Recipient(
        merchant_id=merchant_id,
        merchant_domain=merchant_domain,
        email=recipient_email,
        unsubscribe_token=unsubscribe_token,
        dynamic_content=dynamic_content,
    )
    hour = now.strftime("%Y-%m-%dT%H")
    return SendEmailCommand(
        idempotency_key=idempotency_key
        or _key("send_", str(recipient.merchant_id), notification_type, recipient_email, hour),
        correlation_id=correlation_id,
        timestamp=now,
        metadata=metadata,
        data=SendEmailCommandPayload(notification_type=notification_type, recipient=recipient),
    ).to_event_dict()


def create_bulk_email_command(
    notification_type: str,
    recipients: list[dict[str, Any]],
    idempotency_key: str | None = None,
    correlation_id: str | None = None,
    metadata: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the event dict of a command to send a mail to many.

    Without `idempotency_key` the key is made of the type and of each recipient's merchant, address
    and content, in whatever order: the same mails asked for again are the same command. Tokens do
    not count, since they may be drawn anew for each call.

    Raises:
        pydantic.ValidationError: a recipient is incomplete.

    """
    payload = SendEmailBulkCommandPayload(
        notification_type=notification_type,
        recipients=[Recipient.model_validate(recipient) for recipient in recipients],
    )
    mails = sorted(
        _canonical([str(recipient.merchant_id), recipient.email, recipient.dynamic_content])
        for recipient in payload.recipients
    )
    return SendEmailBulkCommand(
        idempotency_key=idempotency_key or _key("bulk_", notification_type, *mails),
        correlation_id=correlation_id,
        metadata=metadata,
        data=payload,
    ).to_event_dict()


def _key(prefix: str, *parts: str) -> str:
    return prefix + sha256(_canonical(list(parts)).encode()).hexdigest()[:16]


def _canonical(value: object) -> str:
    return json.dumps(to_jsonable_python(value), sort_keys=True, separators=(",", ":"))
