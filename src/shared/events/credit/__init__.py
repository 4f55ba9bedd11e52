"""A path of the first design: what it names lives in `shared.platform.credit`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.platform.credit import (
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

__getattr__, __dir__ = handed_on(__name__)
