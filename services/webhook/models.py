"""Tables of the webhook service."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    DateTime,
    Identity,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from shared.database import Base

__all__ = ["DeliveryStatus", "WebhookDelivery"]


class DeliveryStatus(StrEnum):
    """What became of a delivery."""

    ACCEPTED = "accepted"
    """Its event is published."""
    IGNORED = "ignored"
    """Nothing follows from it: a topic, or a state, that the platform does not act on."""
    REJECTED = "rejected"
    """It is signed by the shop but cannot be read."""


class WebhookDelivery(Base):
    """One webhook as it came in, byte for byte, so that it can be looked at and replayed."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint(
            "shop_domain", "webhook_id", name="webhook_deliveries_shop_domain_webhook_id_key"
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    shop_domain: Mapped[str] = mapped_column(String(255))
    webhook_id: Mapped[str] = mapped_column(String(128))
    topic: Mapped[str] = mapped_column(String(128))
    body: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[str] = mapped_column(String(16))
    error: Mapped[str | None] = mapped_column(Text)
    received_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )
