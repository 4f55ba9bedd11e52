"""Tables of the notification service."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import DateTime, Index, String, Text, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from shared.database import Base

__all__ = ["Notification", "NotificationStatus"]


class NotificationStatus(StrEnum):
    """How far a mail has come."""

    SENDING = "sending"
    """An attempt runs, or the process that made it died; another may begin after the lease."""
    WAITING = "waiting"
    """The mail server could not take it; the next attempt will come."""
    SENT = "sent"
    """The mail server took it."""
    FAILED = "failed"
    """The mail server refused it for good."""


class Notification(Base):
    """One mail that was asked for: one row for each command."""

    __tablename__ = "notifications"
    __table_args__ = (
        UniqueConstraint("message_id", name="notifications_message_id_key"),
        Index("ix_notifications_merchant_id", "merchant_id", "requested_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(Text, doc="of the command")
    merchant_id: Mapped[UUID]
    notification_type: Mapped[str] = mapped_column(String(64))
    recipient: Mapped[str] = mapped_column(String(320))
    status: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    error: Mapped[str | None] = mapped_column(Text)
    leased_until: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    requested_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )
    sent_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
