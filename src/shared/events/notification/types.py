"""A path of the first design; `shared.legacy.table` says where its names live."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.events.notification import (
        BulkSendCompletedEvent,
        EmailDeliveryFailedEvent,
        EmailSentEvent,
        SendEmailBulkCommand,
        SendEmailCommand,
    )
    from shared.platform.notification import (
        BULK_SEND_COMPLETED,
        EMAIL_FAILED,
        EMAIL_SENT,
        SEND_BULK,
        SEND_EMAIL,
        BulkCompletedEventPayload,
        EmailFailedEventPayload,
        EmailSentEventPayload,
        NotificationCommands,
        NotificationEvents,
        Recipient,
        SendEmailBulkCommandPayload,
        SendEmailCommandPayload,
    )

__all__ = [
    "BULK_SEND_COMPLETED",
    "EMAIL_FAILED",
    "EMAIL_SENT",
    "SEND_BULK",
    "SEND_EMAIL",
    "BulkCompletedEventPayload",
    "BulkSendCompletedEvent",
    "EmailDeliveryFailedEvent",
    "EmailFailedEventPayload",
    "EmailSentEvent",
    "EmailSentEventPayload",
    "NotificationCommands",
    "NotificationEvents",
    "Recipient",
    "SendEmailBulkCommand",
    "SendEmailBulkCommandPayload",
    "SendEmailCommand",
    "SendEmailCommandPayload",
]

__getattr__, __dir__ = handed_on(__name__)
