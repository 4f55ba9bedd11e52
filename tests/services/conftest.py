"""The services, each started on real servers in the test's own process."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

from services.credit.service import service as credit_service
from services.credit.settings import CreditRules, CreditSettings
from services.notification.service import service as notification_service
from services.notification.settings import NotificationSettings, SmtpSettings
from services.webhook.service import service as webhook_service
from services.webhook.settings import ShopifySettings, WebhookSettings
from shared.config import DatabaseSettings, LoggingSettings, NatsSettings
from shared.dev import SmtpSink
from shared.service import Application, Service, ServiceSettings

SHOP = "blue-hat.myshopify.com"
SECRET = "hush"

Start = Callable[..., AbstractAsyncContextManager[Application[Any]]]


@asynccontextmanager
async def _running(
    service: Service[Any], settings: ServiceSettings
) -> AsyncIterator[Application[Any]]:
    async with service.assemble(settings) as application:
        yield application


@pytest.fixture
def common(database_settings: DatabaseSettings, nats_settings: NatsSettings) -> dict[str, Any]:
    return {
        "database": database_settings,
        "nats": nats_settings,
        "logging": LoggingSettings(level="WARNING"),
        "drain_seconds": 5.0,
    }


@pytest.fixture
def start_credit(common: dict[str, Any]) -> Start:
    def start(**rules: int) -> AbstractAsyncContextManager[Application[Any]]:
        return _running(credit_service, CreditSettings(credits=CreditRules(**rules), **common))

    return start


@pytest.fixture
def start_notification(common: dict[str, Any], smtp_sink: SmtpSink) -> Start:
    def start(**smtp: Any) -> AbstractAsyncContextManager[Application[Any]]:
        where = {"host": smtp_sink.host, "port": smtp_sink.port, "timeout_seconds": 5.0} | smtp
        settings = NotificationSettings(smtp=SmtpSettings(**where), **common)
        return _running(notification_service, settings)

    return start


@pytest.fixture
def start_webhook(common: dict[str, Any]) -> Start:
    def start(**shopify: Any) -> AbstractAsyncContextManager[Application[Any]]:
        known = {"secrets": {SHOP: SECRET}} | shopify
        return _running(
            webhook_service,
            WebhookSettings(shopify=ShopifySettings.model_validate(known), **common),
        )

    return start


@asynccontextmanager
async def client_of(application: Application[Any]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service that runs in this process."""
    transport = httpx.ASGITransport(application.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client
