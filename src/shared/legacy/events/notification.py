"""Ready-made send commands whose idempotency key follows from what they say."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Self

from pydantic_core import to_jsonable_python

from shared.legacy.events.context import EventContext  # noqa: TC001 - its annotations are read
from shared.legacy.events.wrapper import EventWrapper, TData
from shared.platform.notification import (
    BulkCompletedEventPayload,
    EmailFailedEventPayload,
    EmailSentEventPayload,
    NotificationCommands,
    NotificationEvents,
    Recipient,
    SendEmailBulkCommandPayload,
    SendEmailCommandPayload,
)

if TYPE_CHECKING:
    from uuid import UUID


class SendEmailCommand(EventWrapper[SendEmailCommandPayload]):
    """The command to send one mail."""

    subject: str = NotificationCommands.NOTIFICATION_SEND_EMAIL

    @classmethod
    def create_from_context(
        cls, context: EventContext, notification_type: str, recipient: Recipient
    ) -> Self:
        """Make the command as the event that `context` describes."""
        payload = SendEmailCommandPayload(notification_type=notification_type, recipient=recipient)
        return cls.from_context(context, payload)


class SendEmailBulkCommand(EventWrapper[SendEmailBulkCommandPayload]):
    """The command to send a mail to many."""

    subject: str = NotificationCommands.NOTIFICATION_SEND_BULK

    @classmethod
    def create_from_context(
        cls, context: EventContext, notification_type: str, recipients: list[Recipient]
    ) -> Self:
        """Make the command as the event that `context` describes."""
        payload = SendEmailBulkCommandPayload(
            notification_type=notification_type, recipients=recipients
        )
        return cls.from_context(context, payload)


class _Told(EventWrapper[TData]):
    @classmethod
    def create_from_context(cls, context: EventContext, payload: TData) -> Self:
        """Make the event that `context` describes."""
        return cls.from_context(context, payload)


class EmailSentEvent(_Told[EmailSentEventPayload]):
    """The news of a mail sent."""

    subject: str = NotificationEvents.NOTIFICATION_EMAIL_SENT


class EmailDeliveryFailedEvent(_Told[EmailFailedEventPayload]):
    """The news of a mail that could not be sent."""

    subject: str = NotificationEvents.NOTIFICATION_EMAIL_FAILED


class BulkSendCompletedEvent(_Told[BulkCompletedEventPayload]):
    """The news of a bulk send that is through."""

    subject: str = NotificationEvents.NOTIFICATION_BULK_SEND_COMPLETED


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
