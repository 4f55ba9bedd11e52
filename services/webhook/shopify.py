"""Shopify's webhooks: whether one is genuine, and what it tells the platform.

Source: https://shopify.dev/docs/apps/build/webhooks
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, NamedTuple
from uuid import NAMESPACE_DNS, UUID, uuid5

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, SecretStr

from services.webhook.settings import ShopifySettings
from shared.events import Contract
from shared.events.credit import (
    ACCOUNT_CREATED,
    MERCHANT_CREATED,
    ORDER_UPDATED,
    SUBSCRIPTION_RENEWED,
    AccountCreatedPayload,
    MerchantCreatedPayload,
    OrderLine,
    OrderUpdatedPayload,
    SubscriptionRenewedPayload,
)

__all__ = ["Fact", "canonical_topic", "is_genuine", "merchant_id_of", "read", "sign"]

_NOBODY = SecretStr(secrets.token_hex())


def sign(body: bytes, secret: SecretStr) -> str:
    """Return the ``X-Shopify-Hmac-Sha256`` of a body: base64 of HMAC-SHA256 over its raw bytes."""
    digest = hmac.digest(secret.get_secret_value().encode(), body, hashlib.sha256)
    return base64.b64encode(digest).decode()


def is_genuine(
    body: bytes, signature: str, shop_domain: str, known: Mapping[str, SecretStr]
) -> bool:
    """Tell whether the shop signed the body.

    An unknown shop takes the same time as a wrong signature, so that nobody can find out by asking
    which shops there are.
    """
    expected = sign(body, known.get(shop_domain, _NOBODY))
    return hmac.compare_digest(expected.encode(), signature.encode())


def merchant_id_of(shop_domain: str) -> UUID:
    """Return the merchant's id: UUIDv5 of the shop's domain, the same wherever it is computed."""
    return uuid5(NAMESPACE_DNS, shop_domain)


def canonical_topic(topic: str) -> str:
    """Return a topic as Shopify writes it: ``orders-updated`` is ``orders/updated``."""
    return topic if "/" in topic else topic.replace("-", "/", 1)


class Fact(NamedTuple):
    """What a webhook tells the platform."""

    contract: Contract[Any]
    payload: BaseModel


def read(topic: str, body: bytes, shop_domain: str, settings: ShopifySettings) -> Fact | None:
    """Return what the webhook tells the platform; None when nothing follows from it.

    Raises:
        pydantic.ValidationError: the body is not the JSON, or has not the fields, of its topic.
    """
    reader = _READERS.get(topic)
    return reader(body, shop_domain, settings) if reader is not None else None


# Shopify's ids are numbers, the platform's are strings.
_Id = Annotated[
    str,
    Field(max_length=64),
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
]


class _LineItem(BaseModel):
    id: _Id
    title: str
    sku: str | None = None
    quantity: int = Field(ge=0)
    price: Decimal = Field(ge=0, allow_inf_nan=False)


class _Order(BaseModel):
    id: _Id
    name: str
    order_number: int | None = None
    currency: str = Field(pattern="^[A-Z]{3}$")
    updated_at: AwareDatetime
    cancelled_at: AwareDatetime | None = None
    line_items: list[_LineItem]


def _order(body: bytes, shop_domain: str, _: ShopifySettings) -> Fact:
    order = _Order.model_validate_json(body)
    return Fact(
        ORDER_UPDATED,
        OrderUpdatedPayload(
            merchant_id=merchant_id_of(shop_domain),
            merchant_domain=shop_domain,
            order_id=order.id,
            order_name=order.name,
            order_number=order.order_number,
            currency=order.currency,
            updated_at=order.updated_at,
            cancelled_at=order.cancelled_at,
            lines=[
                OrderLine(
                    line_id=item.id,
                    title=item.title,
                    sku=item.sku,
                    quantity=item.quantity,
                    price=item.price,
                )
                for item in order.line_items
            ],
        ),
    )


class _Shop(BaseModel):
    name: str
    email: str
    created_at: AwareDatetime


def _installation(body: bytes, shop_domain: str, _: ShopifySettings) -> Fact:
    shop = _Shop.model_validate_json(body)
    return Fact(
        MERCHANT_CREATED,
        MerchantCreatedPayload(
            merchant_id=merchant_id_of(shop_domain),
            merchant_domain=shop_domain,
            shop_name=shop.name,
            contact_email=shop.email,
            created_at=shop.created_at,
        ),
    )


class _Customer(BaseModel):
    id: _Id
    email: str | None = None
    created_at: AwareDatetime


def _customer(body: bytes, shop_domain: str, _: ShopifySettings) -> Fact:
    customer = _Customer.model_validate_json(body)
    return Fact(
        ACCOUNT_CREATED,
        AccountCreatedPayload(
            merchant_id=merchant_id_of(shop_domain),
            merchant_domain=shop_domain,
            account_id=customer.id,
            email=customer.email,
            created_at=customer.created_at,
        ),
    )


class _Subscription(BaseModel):
    admin_graphql_api_id: str
    name: str
    status: str
    updated_at: AwareDatetime
    interval: str = "every_30_days"


class _SubscriptionUpdate(BaseModel):
    app_subscription: _Subscription


def _subscription(body: bytes, shop_domain: str, settings: ShopifySettings) -> Fact | None:
    """Read a renewal: an active subscription starts a period when it is updated.

    Shopify names no period in this webhook; its length follows from the interval.
    """
    subscription = _SubscriptionUpdate.model_validate_json(body).app_subscription
    if subscription.status.upper() != "ACTIVE":
        return None
    days = 365 if subscription.interval.lower() == "annual" else 30
    return Fact(
        SUBSCRIPTION_RENEWED,
        SubscriptionRenewedPayload(
            merchant_id=merchant_id_of(shop_domain),
            merchant_domain=shop_domain,
            subscription_id=subscription.admin_graphql_api_id,
            plan=subscription.name,
            credits=settings.plans.get(subscription.name, settings.plan_credits),
            period_start=subscription.updated_at,
            period_end=subscription.updated_at + timedelta(days=days),
        ),
    )


_READERS: Mapping[str, Callable[[bytes, str, ShopifySettings], Fact | None]] = {
    "app/installed": _installation,
    "app_subscriptions/update": _subscription,
    "customers/create": _customer,
    "orders/cancelled": _order,
    "orders/create": _order,
    "orders/fulfilled": _order,
    "orders/paid": _order,
    "orders/updated": _order,
}
