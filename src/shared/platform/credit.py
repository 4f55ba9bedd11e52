"""Subjects, payloads and contracts of the facts that move credits."""

from decimal import Decimal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from shared.platform.streams import declare


class CreditEvents:
    """The subjects that the credit service listens to."""

    ORDER_UPDATED = "evt.order.updated"
    ACCOUNT_CREATED = "evt.account.created"
    SUBSCRIPTION_RENEWED = "evt.subscription.renewed"
    MERCHANT_CREATED = "evt.merchant.created"


class OrderLine(BaseModel, frozen=True):
    """One position of an order; `price` is for one piece, in the order's currency."""

    line_id: str
    title: str
    sku: str | None = None
    quantity: int = Field(ge=0)
    price: Decimal = Field(ge=0, allow_inf_nan=False)


class OrderUpdatedPayload(BaseModel, frozen=True):
    """An order as it stands since `updated_at`.

    Orders may arrive out of order and more than once: the state with the latest `updated_at`
    is the valid one. An order with `cancelled_at` is no longer to be charged.
    """

    merchant_id: UUID
    merchant_domain: str
    order_id: str
    order_name: str
    order_number: int | None = None
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217")
    lines: list[OrderLine]
    updated_at: AwareDatetime
    cancelled_at: AwareDatetime | None = None


class AccountCreatedPayload(BaseModel, frozen=True):
    """A customer opened an account at a merchant's shop."""

    merchant_id: UUID
    merchant_domain: str
    account_id: str
    email: str | None = None
    created_at: AwareDatetime


class SubscriptionRenewedPayload(BaseModel, frozen=True):
    """A merchant's plan was paid for another period, which carries `credits`."""

    merchant_id: UUID
    merchant_domain: str
    subscription_id: str
    plan: str
    credits: int = Field(ge=0)
    period_start: AwareDatetime
    period_end: AwareDatetime


class MerchantCreatedPayload(BaseModel, frozen=True):
    """A shop installed the platform; without `trial_credits` it gets the usual trial."""

    merchant_id: UUID
    merchant_domain: str
    shop_name: str
    contact_email: str
    created_at: AwareDatetime
    trial_credits: int | None = Field(default=None, ge=0)


ORDER_UPDATED = declare(CreditEvents.ORDER_UPDATED, OrderUpdatedPayload)
ACCOUNT_CREATED = declare(CreditEvents.ACCOUNT_CREATED, AccountCreatedPayload)
SUBSCRIPTION_RENEWED = declare(CreditEvents.SUBSCRIPTION_RENEWED, SubscriptionRenewedPayload)
MERCHANT_CREATED = declare(CreditEvents.MERCHANT_CREATED, MerchantCreatedPayload)
