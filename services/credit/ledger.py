"""The rules of credits: one for each order line, taken once, and a ledger that sums to the balance.

Every function works inside the caller's transaction and starts by locking the account row, so what
happens to one merchant happens in one order, whichever replica does it.

When credits run out, nothing is lost and nothing goes negative: the order line is kept unpaid, and
the next top-up pays the unpaid lines, oldest first, before anything else can use the credits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.credit.models import Account, EntryKind, LedgerEntry, Order, OrderLine
from shared.database import RowLock, excluded
from shared.events.notification import SEND_EMAIL, Recipient, SendEmailCommandPayload
from shared.idempotency import idempotency_key

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from services.credit.settings import CreditRules
    from shared.delivery import UnitOfWork
    from shared.events.credit import (
        MerchantCreatedPayload,
        OrderUpdatedPayload,
        SubscriptionRenewedPayload,
    )

__all__ = ["Ledger"]


class Ledger:
    """The credits of one merchant while its account is locked; made by ``open``."""

    def __init__(self, uow: UnitOfWork, rules: CreditRules, account: Account) -> None:
        self._uow = uow
        self._rules = rules
        self._account = account

    @classmethod
    async def open(
        cls,
        uow: UnitOfWork,
        rules: CreditRules,
        merchant_id: UUID,
        merchant_domain: str,
        *,
        trial: int | None = None,
    ) -> Ledger:
        """Lock the merchant's account until the transaction ends; the first call creates it.

        Whatever event comes first opens the account and gives the trial credits, those of the
        rules unless ``trial`` says otherwise; no later event gives them again. An order may well
        overtake the installation of its merchant.
        """
        accounts = uow.repository(Account)
        created = await accounts.insert_missing(
            [
                {
                    "merchant_id": merchant_id,
                    "merchant_domain": merchant_domain,
                    "balance": 0,
                    "entries": 0,
                    "crossings": 0,
                }
            ]
        )
        account = await accounts.get(merchant_id, lock=RowLock())
        ledger = cls(uow, rules, account)
        given = rules.trial if trial is None else trial
        if created and given:
            await ledger._post(EntryKind.TRIAL, given, ["trial"])
        return ledger

    def introduce(self, merchant: MerchantCreatedPayload) -> None:
        """Note whom to write to."""
        self._account.merchant_domain = merchant.merchant_domain
        self._account.email = merchant.contact_email

    async def debit(self, order: OrderUpdatedPayload) -> None:
        """Take one credit for each line of the order that was never seen before.

        Versions of an order may come in any order and any number of times. A line is debited once,
        and stays debited when a later version no longer has it. Prices, titles and quantities are
        those of the newest version; one that is not newer only adds the lines it alone knows.
        Once the newest version is cancelled, what was not debited by then never is.
        """
        key = {"merchant_id": order.merchant_id, "order_id": order.order_id}
        version = {
            "revised_at": order.updated_at,
            "currency": order.currency,
            "cancelled": order.cancelled_at is not None,
        }
        newest = await self._uow.repository(Order).upsert_many(
            [key | version],
            conflict=list(key),
            change=list(version),
            when=Order.revised_at < excluded(Order.revised_at),
        )
        if order.lines:
            await self._keep_lines(order, renew=bool(newest))
        await self._settle()

    async def top_up(self, renewal: SubscriptionRenewedPayload) -> None:
        """Add the credits of a period, once, and pay the lines that wait for them."""
        reference = idempotency_key(renewal.subscription_id, renewal.period_start.isoformat())
        known = await self._uow.repository(LedgerEntry).exists(
            merchant_id=renewal.merchant_id, kind=EntryKind.TOP_UP, reference=reference
        )
        if renewal.credits and not known:
            await self._post(EntryKind.TOP_UP, renewal.credits, [reference])
            await self._settle()

    async def _keep_lines(self, order: OrderUpdatedPayload, *, renew: bool) -> None:
        rows = {  # an order may name a line twice: the last counts
            line.line_id: {
                "merchant_id": order.merchant_id,
                "order_id": order.order_id,
                "line_id": line.line_id,
                "title": line.title,
                "quantity": line.quantity,
                "price": line.price,
                "paid": False,
            }
            for line in order.lines
        }.values()
        lines, key = self._uow.repository(OrderLine), ["merchant_id", "order_id", "line_id"]
        if renew:
            await lines.upsert_many(rows, conflict=key, change=["title", "quantity", "price"])
        else:
            await lines.insert_missing(rows, conflict=key)

    async def _settle(self) -> None:
        """Pay unpaid lines, oldest first, as far as the credits reach."""
        affordable = self._account.balance + self._rules.overdraft
        if affordable <= 0:
            return
        unpaid = await self._uow.repository(OrderLine).list(
            OrderLine.order.has(Order.cancelled.is_(False)),
            merchant_id=self._account.merchant_id,
            paid=False,
            order_by="id",
            limit=affordable,
        )
        for line in unpaid:
            line.paid = True
        references = (idempotency_key(line.order_id, line.line_id) for line in unpaid)
        await self._post(EntryKind.DEBIT, -1, references)

    async def _post(self, kind: EntryKind, amount: int, references: Iterable[str]) -> None:
        """Enter the amount once for each reference."""
        account, low = self._account, self._rules.low_balance
        entries = []
        for reference in references:
            before = account.balance
            account.balance += amount
            account.entries += 1
            entries.append(
                LedgerEntry(
                    merchant_id=account.merchant_id,
                    position=account.entries,
                    kind=kind,
                    reference=reference,
                    amount=amount,
                    balance=account.balance,
                )
            )
            if before > low >= account.balance:
                account.crossings += 1
                self._warn(account)
        await self._uow.repository(LedgerEntry).insert_many(entries)

    def _warn(self, account: Account) -> None:
        """Ask for the one mail of this crossing; a balance above the mark again arms the next."""
        self._uow.outbox.add(
            SEND_EMAIL,
            SendEmailCommandPayload(
                notification_type="low_balance",
                recipient=Recipient(
                    merchant_id=account.merchant_id,
                    merchant_domain=account.merchant_domain,
                    email=account.email or f"postmaster@{account.merchant_domain}",
                    unsubscribe_token="",  # a notice about the account itself: always sent
                    dynamic_content={
                        "shop": account.merchant_domain,
                        "balance": account.balance,
                        "threshold": self._rules.low_balance,
                    },
                ),
            ),
            key=str(account.merchant_id),
            idempotency_key=f"low-balance:{account.merchant_id}:{account.crossings}",
        )
