"""Subjects, payloads, wrappers and contracts of the notification service."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, Field

from shared.platform.streams import declare


class NotificationCommands:
    """What the notification service can be asked."""

    NOTIFICATION_SEND_EMAIL = "cmd.notification.send_email"
    NOTIFICATION_SEND_BULK = "cmd.notification.bulk_send"


class NotificationEvents:
    """What the notification service tells."""

    NOTIFICATION_EMAIL_SENT = "evt.notification.email.sent"
    NOTIFICATION_EMAIL_FAILED = "evt.notification.email.failed"
    NOTIFICATION_BULK_SEND_COMPLETED = "evt.notification.bulk_send.completed"


class Recipient(BaseModel):
    """One addressee, with what the template is filled from."""

    merchant_id: UUID
    merchant_domain: str
    email: str
    unsubscribe_token: str
    dynamic_content: dict[str, Any] = Field(default_factory=dict)


class SendEmailCommandPayload(BaseModel):
    """Send one mail; `notification_type` chooses the template."""

    notification_type: str
    recipient: Recipient


class SendEmailBulkCommandPayload(BaseModel):
    """Send one mail to each recipient; `notification_type` chooses the template."""

    notification_type: str
    recipients: list[Recipient]


class EmailSentEventPayload(BaseModel):
    """A provider took a mail; `provider_message_id` is its name for it."""

    notification_id: UUID
    merchant_id: UUID
    notification_type: str
    provider: str
    provider_message_id: str
    sent_at: datetime
    metadata: dict[str, Any] = Field(default_factory=dict)


class EmailFailedEventPayload(BaseModel):
    """A mail could not be sent; `will_retry` says whether another attempt follows."""

    notification_id: UUID
    merchant_id: UUID
    notification_type: str
    error: str
    error_code: str
    retry_count: int
    will_retry: bool
    failed_at: datetime


class BulkCompletedEventPayload(BaseModel):
    """A bulk send is through; sent, failed and skipped add up to the recipients."""

    bulk_job_id: UUID
    notification_type: str
    total_recipients: int
    total_sent: int
    total_failed: int
    total_skipped: int
    duration_seconds: float
    completed_at: datetime


SEND_EMAIL = declare(NotificationCommands.NOTIFICATION_SEND_EMAIL, SendEmailCommandPayload)
SEND_BULK = declare(NotificationCommands.NOTIFICATION_SEND_BULK, SendEmailBulkCommandPayload)
EMAIL_SENT = declare(NotificationEvents.NOTIFICATION_EMAIL_SENT, EmailSentEventPayload)
EMAIL_FAILED = declare(NotificationEvents.NOTIFICATION_EMAIL_FAILED, EmailFailedEventPayload)
BULK_SEND_COMPLETED = declare(
    NotificationEvents.NOTIFICATION_BULK_SEND_COMPLETED, BulkCompletedEventPayload
)
