"""The credit service, declared: what it handles, what it may publish, what it answers."""

from services.credit.ledger import Ledger
from services.credit.routes import router
from services.credit.settings import CreditSettings
from shared.database import tenant_scope
from shared.delivery import UnitOfWork
from shared.events.credit import (
    MERCHANT_CREATED,
    ORDER_UPDATED,
    SUBSCRIPTION_RENEWED,
    MerchantCreatedPayload,
    OrderUpdatedPayload,
    SubscriptionRenewedPayload,
)
from shared.events.notification import SEND_EMAIL
from shared.platform.streams import STREAMS
from shared.service import Service

__all__ = ["service"]

service = Service(
    "credit-service",
    settings=CreditSettings,
    publishes=[SEND_EMAIL],
    streams=STREAMS,
    migrations="services.credit.migrations",
    description="Credits of merchants: trial, order lines, top-ups, the low-balance mail.",
)
service.router.include_router(router)


@service.handles(MERCHANT_CREATED, ack_wait_seconds=10)
async def open_account(
    merchant: MerchantCreatedPayload, uow: UnitOfWork, settings: CreditSettings
) -> None:
    """Open the account with its trial credits, unless an order did so before."""
    with tenant_scope(merchant.merchant_id):
        ledger = await Ledger.open(
            uow,
            settings.credits,
            merchant.merchant_id,
            merchant.merchant_domain,
            trial=merchant.trial_credits,
        )
        ledger.introduce(merchant)


@service.handles(ORDER_UPDATED, ack_wait_seconds=10)
async def debit_order(
    order: OrderUpdatedPayload, uow: UnitOfWork, settings: CreditSettings
) -> None:
    """Take one credit for each new line of the order."""
    with tenant_scope(order.merchant_id):
        ledger = await Ledger.open(uow, settings.credits, order.merchant_id, order.merchant_domain)
        await ledger.debit(order)


@service.handles(SUBSCRIPTION_RENEWED, ack_wait_seconds=10)
async def top_up(
    renewal: SubscriptionRenewedPayload, uow: UnitOfWork, settings: CreditSettings
) -> None:
    """Add the credits of the renewal and pay the lines that wait for them."""
    with tenant_scope(renewal.merchant_id):
        ledger = await Ledger.open(
            uow, settings.credits, renewal.merchant_id, renewal.merchant_domain
        )
        await ledger.top_up(renewal)
