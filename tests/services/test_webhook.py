import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import select, text

from services.webhook import shopify
from services.webhook.models import WebhookDelivery
from services.webhook.settings import ShopifySettings
from shared.events import Envelope
from shared.events.credit import (
    AccountCreatedPayload,
    MerchantCreatedPayload,
    OrderUpdatedPayload,
    SubscriptionRenewedPayload,
)
from shared.service import Application

from .conftest import SECRET, SHOP, Start, client_of

ORDER: dict[str, Any] = {
    "id": 450789469,
    "name": "#1001",
    "order_number": 1001,
    "currency": "EUR",
    "updated_at": "2026-11-23T10:00:00+01:00",
    "cancelled_at": None,
    "line_items": [
        {"id": 1, "title": "Blue hat", "sku": "HAT-B", "quantity": 2, "price": "19.90"},
        {"id": 2, "title": "Box", "sku": None, "quantity": 1, "price": "0.00"},
    ],
    "note": "fields that nobody asked for are no trouble",
}


class Shopify:
    """A shop's webhooks, signed."""

    def __init__(self, client: httpx.AsyncClient, application: Application[Any]) -> None:
        self._client = client
        self.application = application

    async def send(
        self,
        topic: str,
        body: object,
        *,
        webhook_id: str = "w-1",
        shop: str = SHOP,
        secret: str = SECRET,
        **headers: str,
    ) -> httpx.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self._client.post(
            f"/api/v1/webhooks/shopify/{topic}",
            content=raw,
            headers=[
                (name.encode(), value.encode())
                for name, value in {
                    "X-Shopify-Shop-Domain": shop,
                    "X-Shopify-Webhook-Id": webhook_id,
                    "X-Shopify-Hmac-Sha256": shopify.sign(raw, SecretStr(secret)),
                    **headers,
                }.items()
            ],
        )

    async def kept(self) -> list[WebhookDelivery]:
        async with self.application.database.transaction() as session:
            return list(await session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))

    async def published(self) -> list[Envelope]:
        async with self.application.database.transaction() as session:
            bodies = await session.scalars(text("SELECT body FROM outbox ORDER BY id"))
            return [Envelope.decode(bytes(body)) for body in bodies]


@pytest.fixture
async def shop(start_webhook: Start) -> AsyncIterator[Shopify]:
    async with start_webhook() as application, client_of(application) as client:
        yield Shopify(client, application)


def test_the_signature_is_shopifys() -> None:
    # openssl dgst -sha256 -hmac hush -binary <<< '{}' | base64
    assert (
        shopify.sign(b"{}\n", SecretStr("hush")) == "1T5JSFQ++LWIrhxEsbnCgMjIvdJyvxdDRYTlUeyNcBs="
    )


async def test_an_order_is_kept_and_told(shop: Shopify) -> None:
    answer = await shop.send("orders/create", ORDER)
    assert answer.status_code == 202
    (event,) = await shop.published()
    assert answer.json()["data"] == {
        "webhook_id": "w-1",
        "status": "accepted",
        "duplicate": False,
        "event_id": event.event_id,
    }
    order = OrderUpdatedPayload.model_validate(event.payload)
    assert event.subject == "evt.order.updated"
    assert order.merchant_id == uuid5(NAMESPACE_DNS, SHOP)
    assert order.order_id == "450789469"
    assert [(line.line_id, line.quantity, str(line.price)) for line in order.lines] == [
        ("1", 2, "19.90"),
        ("2", 1, "0.00"),
    ]
    (kept,) = await shop.kept()
    assert (kept.body, kept.topic, kept.status) == (
        json.dumps(ORDER).encode(),
        "orders/create",
        "accepted",
    )
    assert event.trace_id == answer.headers["X-Trace-ID"]


@pytest.mark.parametrize(
    ("topic", "body", "subject", "payload"),
    [
        ("orders-updated", ORDER, "evt.order.updated", OrderUpdatedPayload),
        (
            "app/installed",
            {"name": "Blue Hat", "email": "o@b.example", "created_at": "2026-11-23T10:00:00Z"},
            "evt.merchant.created",
            MerchantCreatedPayload,
        ),
        (
            "customers/create",
            {"id": 7, "email": None, "created_at": "2026-11-23T10:00:00Z"},
            "evt.account.created",
            AccountCreatedPayload,
        ),
        (
            "app_subscriptions/update",
            {
                "app_subscription": {
                    "admin_graphql_api_id": "gid://shopify/AppSubscription/1",
                    "name": "basic",
                    "status": "ACTIVE",
                    "updated_at": "2026-11-23T10:00:00Z",
                }
            },
            "evt.subscription.renewed",
            SubscriptionRenewedPayload,
        ),
    ],
)
async def test_each_topic_tells_its_fact(
    shop: Shopify, topic: str, body: object, subject: str, payload: Callable[..., Any]
) -> None:
    assert (await shop.send(topic, body)).status_code == 202
    (event,) = await shop.published()
    assert event.subject == subject
    payload(**event.payload)


def test_a_plan_decides_the_credits_of_a_period() -> None:
    settings = ShopifySettings(plans={"gold": 900}, plan_credits=100)

    def credit(plan: str, interval: str) -> SubscriptionRenewedPayload:
        subscription = {
            "admin_graphql_api_id": "gid://shopify/AppSubscription/1",
            "name": plan,
            "status": "active",
            "updated_at": "2026-11-23T10:00:00Z",
            "interval": interval,
        }
        body = json.dumps({"app_subscription": subscription}).encode()
        fact = shopify.read("app_subscriptions/update", body, SHOP, settings)
        assert fact is not None
        assert isinstance(fact.payload, SubscriptionRenewedPayload)
        return fact.payload

    assert credit("gold", "every_30_days").credits == 900
    assert credit("other", "annual").credits == 100
    assert (credit("x", "annual").period_end - credit("x", "annual").period_start).days == 365


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        ("products/update", {"id": 1}),
        (
            "app_subscriptions/update",
            {
                "app_subscription": {
                    "admin_graphql_api_id": "gid://shopify/AppSubscription/1",
                    "name": "basic",
                    "status": "CANCELLED",
                    "updated_at": "2026-11-23T10:00:00Z",
                }
            },
        ),
    ],
)
async def test_what_nothing_follows_from_is_kept_and_not_told(
    shop: Shopify, topic: str, body: object
) -> None:
    answer = await shop.send(topic, body)
    assert answer.status_code == 202
    assert answer.json()["data"]["status"] == "ignored"
    assert [kept.status for kept in await shop.kept()] == ["ignored"]
    assert await shop.published() == []


async def test_a_delivery_that_comes_again_is_told_once(shop: Shopify) -> None:
    first = await shop.send("orders/create", ORDER)
    second = await shop.send("orders/create", ORDER)
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json()["data"]["duplicate"] is True
    assert len(await shop.published()) == 1


async def test_of_deliveries_at_once_one_is_told(shop: Shopify) -> None:
    answers = await asyncio.gather(*(shop.send("orders/create", ORDER) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
    assert len(await shop.published()) == len(await shop.kept()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"secret": "guessed"},
        {"shop": "unknown.myshopify.com"},
        {"X-Shopify-Hmac-Sha256": "é"},
        {"X-Shopify-Hmac-Sha256": ""},
    ],
)
async def test_what_the_shop_did_not_sign_is_refused_and_not_kept(
    shop: Shopify, change: dict[str, str]
) -> None:
    answer = await shop.send("orders/create", ORDER, **change)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "UNAUTHORIZED"
    assert answer.headers["WWW-Authenticate"] == "shopify-hmac"
    assert SECRET not in answer.text
    assert await shop.kept() == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"id": 1,', ""),
        (b"\xff\xfe", ""),
        (b"", ""),
        ({"id": 1}, "line_items"),
        (ORDER | {"updated_at": "2026-11-23T10:00:00"}, "updated_at"),
        (ORDER | {"line_items": [{"id": 1, "title": "x", "quantity": 1}]}, "line_items.0.price"),
    ],
)
async def test_what_cannot_be_read_is_refused_and_kept(
    shop: Shopify, body: object, field: str
) -> None:
    answer = await shop.send("orders/create", body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert field in [mistake["field"] for mistake in error["details"]["validation_errors"]]
    (kept,) = await shop.kept()
    assert kept.status == "rejected"
    assert field in str(kept.error)
    assert kept.body == (body if isinstance(body, bytes) else json.dumps(body).encode())
    assert await shop.published() == []


async def test_a_rejected_delivery_is_taken_when_it_comes_again_in_order(shop: Shopify) -> None:
    assert (await shop.send("orders/create", b"{")).status_code == 422
    assert (await shop.send("orders/create", b"{")).status_code == 422
    assert (await shop.send("orders/create", ORDER)).status_code == 202
    assert (await shop.send("orders/create", b"{")).status_code == 422
    (kept,) = await shop.kept()
    assert (kept.status, kept.error) == ("accepted", None)
    assert len(await shop.published()) == 1


async def test_a_body_above_the_limit_is_refused(shop: Shopify) -> None:
    answer = await shop.send("orders/create", b" " * 1_048_577)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "HTTP_413"
    assert await shop.kept() == []


async def test_a_missing_header_is_named(shop: Shopify) -> None:
    async with client_of(shop.application) as client:
        answer = await client.post("/api/v1/webhooks/shopify/orders/create", content=b"{}")
    assert answer.status_code == 422
    fields = [e["field"] for e in answer.json()["error"]["details"]["validation_errors"]]
    assert "header.X-Shopify-Webhook-Id" in fields
