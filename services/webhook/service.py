"""The webhook service, declared: one route, and what it may publish."""

from services.webhook.routes import router
from services.webhook.settings import WebhookSettings
from shared.events.credit import (
    ACCOUNT_CREATED,
    MERCHANT_CREATED,
    ORDER_UPDATED,
    SUBSCRIPTION_RENEWED,
)
from shared.platform.streams import STREAMS
from shared.service import Service

__all__ = ["service"]

service = Service(
    "webhook-service",
    settings=WebhookSettings,
    publishes=[ACCOUNT_CREATED, MERCHANT_CREATED, ORDER_UPDATED, SUBSCRIPTION_RENEWED],
    streams=STREAMS,
    migrations="services.webhook.migrations",
    description="The door for webhooks: checked, kept as they came, told to the platform once.",
)
service.router.include_router(router)
