"""HTTP of the credit service."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from services.credit.models import Account, EntryKind, LedgerEntry, OrderLine
from services.credit.settings import CreditRules, CreditSettings
from shared.api import (
    ApiResponse,
    PaginationDep,
    paginated_response,
    raises,
    success_response,
)
from shared.database import tenant_scope
from shared.errors import NotFoundError
from shared.service import Provided, ReadOnlyUnitOfWorkDep

__all__ = ["AccountView", "EntryView", "PluginStatus", "router"]

router = APIRouter(prefix="/accounts", tags=["accounts"])


class PluginStatus(StrEnum):
    """What the balance lets the merchant's plugin do."""

    ACTIVE = "active"
    LOW = "low"
    SUSPENDED = "suspended"

    @classmethod
    def of(cls, balance: int, rules: CreditRules) -> "PluginStatus":
        """Suspended when not one more credit can be taken, low at or below the low mark."""
        if balance + rules.overdraft <= 0:
            return cls.SUSPENDED
        return cls.LOW if balance <= rules.low_balance else cls.ACTIVE


class AccountView(BaseModel):
    """An account as its readers see it."""

    merchant_id: UUID
    merchant_domain: str
    balance: int
    plugin_status: PluginStatus
    unpaid_lines: int
    low_balance_crossings: int


class EntryView(BaseModel):
    """A ledger entry; ``balance`` is the one after it."""

    model_config = ConfigDict(from_attributes=True)

    position: int
    kind: EntryKind
    reference: str
    amount: int
    balance: int
    created_at: datetime


@router.get("/{merchant_id}")
@raises(NotFoundError)
async def read_account(
    merchant_id: UUID,
    uow: ReadOnlyUnitOfWorkDep,
    settings: Annotated[CreditSettings, Provided(CreditSettings)],
) -> ApiResponse[AccountView]:
    """Balance and plugin status of a merchant."""
    with tenant_scope(merchant_id):
        account = await _account(uow, merchant_id)
        unpaid = await uow.repository(OrderLine).count(merchant_id=merchant_id, paid=False)
    return success_response(
        AccountView(
            merchant_id=account.merchant_id,
            merchant_domain=account.merchant_domain,
            balance=account.balance,
            plugin_status=PluginStatus.of(account.balance, settings.credits),
            unpaid_lines=unpaid,
            low_balance_crossings=account.crossings,
        )
    )


@router.get("/{merchant_id}/ledger")
@raises(NotFoundError)
async def read_ledger(
    merchant_id: UUID, uow: ReadOnlyUnitOfWorkDep, page: PaginationDep, request: Request
) -> ApiResponse[list[EntryView]]:
    """Every change of the balance, newest first."""
    with tenant_scope(merchant_id):
        account = await _account(uow, merchant_id)
        entries = await uow.repository(LedgerEntry).find_all(
            merchant_id=merchant_id, order_by="-position", offset=page.offset, limit=page.limit
        )
    return paginated_response(
        [EntryView.model_validate(entry) for entry in entries],
        page=page.page,
        limit=page.limit,
        total=account.entries,
        base_url=request.url.path,
    )


async def _account(uow: ReadOnlyUnitOfWorkDep, merchant_id: UUID) -> Account:
    account = await uow.repository(Account).find_by_id(merchant_id)
    if account is None:
        raise NotFoundError(f"no account of merchant {merchant_id}", merchant_id=merchant_id)
    return account
