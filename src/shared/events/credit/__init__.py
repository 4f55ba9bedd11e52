"""What the credit service listens to: orders, accounts, subscriptions and merchants."""

from shared.events.credit.types import (
    ACCOUNT_CREATED,
    MERCHANT_CREATED,
    ORDER_UPDATED,
    SUBSCRIPTION_RENEWED,
    AccountCreatedPayload,
    CreditEvents,
    MerchantCreatedPayload,
    OrderLine,
    OrderUpdatedPayload,
    SubscriptionRenewedPayload,
)

__all__ = [
    "ACCOUNT_CREATED",
    "MERCHANT_CREATED",
    "ORDER_UPDATED",
    "SUBSCRIPTION_RENEWED",
    "AccountCreatedPayload",
    "CreditEvents",
    "MerchantCreatedPayload",
    "OrderLine",
    "OrderUpdatedPayload",
    "SubscriptionRenewedPayload",
]
