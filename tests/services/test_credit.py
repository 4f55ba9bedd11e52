import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, text

from services.credit.ledger import Ledger
from services.credit.models import Account, LedgerEntry, Order, OrderLine
from services.credit.service import service
from services.credit.settings import CreditRules
from shared.config import DatabaseSettings
from shared.database import Database, migrate, tenant_scope
from shared.delivery import UnitOfWork
from shared.events import Envelope
from shared.events.credit import (
    MERCHANT_CREATED,
    ORDER_UPDATED,
    SUBSCRIPTION_RENEWED,
    MerchantCreatedPayload,
    OrderUpdatedPayload,
    SubscriptionRenewedPayload,
)
from shared.events.credit import OrderLine as Line
from shared.service import Application
from shared.testing import eventually

from .conftest import Start, client_of

MERCHANT = UUID(int=1)
SHOP = "blue-hat.myshopify.com"
MORNING = datetime(2026, 11, 23, 8, tzinfo=UTC)


class Books:
    """The ledger of one merchant, driven without messages."""

    def __init__(self, database: Database, rules: CreditRules) -> None:
        self.database = database
        self.rules = rules

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator[Ledger]:
        async with self.unit_of_work() as uow:
            yield await Ledger.open(uow, self.rules, MERCHANT, SHOP)

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[UnitOfWork]:
        publishes = service.publishes
        with tenant_scope(MERCHANT):
            async with UnitOfWork(
                self.database, service="credit-service", publishes=publishes, notify=False
            ) as uow:
                yield uow

    async def order(self, *args: Any, **kwargs: Any) -> None:
        async with self.ledger() as ledger:
            await ledger.debit(order(*args, **kwargs))

    async def renew(self, credit: int, *, month: int = 1) -> None:
        async with self.ledger() as ledger:
            await ledger.top_up(renewal(credit, month=month))

    async def account(self) -> Account:
        async with self.unit_of_work() as uow:
            return await uow.session.get_one(Account, MERCHANT)

    async def entries(self) -> list[LedgerEntry]:
        async with self.unit_of_work() as uow:
            query = select(LedgerEntry).order_by(LedgerEntry.position)
            return list(await uow.session.scalars(query))

    async def debited(self) -> list[str]:
        return sorted(entry.reference for entry in await self.entries() if entry.kind == "debit")

    async def mails(self) -> list[str]:
        async with self.unit_of_work() as uow:
            found = await uow.session.scalars(text("SELECT body FROM outbox ORDER BY id"))
            return [str(Envelope.decode(bytes(body)).idempotency_key) for body in found]

    async def check(self) -> None:
        """What always holds: positions count up, and the ledger sums to the balance."""
        account, entries = await self.account(), await self.entries()
        running = 0
        for position, entry in enumerate(entries, 1):
            running += entry.amount
            assert (entry.position, entry.balance) == (position, running)
        assert account.balance == running
        assert account.entries == len(entries)


@pytest.fixture
async def books(database_settings: DatabaseSettings) -> AsyncIterator[Books]:
    async with Database(database_settings, schema="credit") as database:
        await migrate(database, migrations="services.credit.migrations")
        yield Books(database, CreditRules(trial=10, low_balance=3))


def order(
    order_id: str, *lines: str, at: int = 0, title: str = "hat", cancelled: bool = False
) -> OrderUpdatedPayload:
    when = MORNING + timedelta(minutes=at)
    return OrderUpdatedPayload(
        merchant_id=MERCHANT,
        merchant_domain=SHOP,
        order_id=order_id,
        order_name=f"#{order_id}",
        currency="EUR",
        updated_at=when,
        cancelled_at=when if cancelled else None,
        lines=[
            Line(line_id=line, title=title, quantity=1, price=Decimal("9.90")) for line in lines
        ],
    )


def renewal(credit: int, *, month: int = 1) -> SubscriptionRenewedPayload:
    start = datetime(2026, month, 1, tzinfo=UTC)
    return SubscriptionRenewedPayload(
        merchant_id=MERCHANT,
        merchant_domain=SHOP,
        subscription_id="sub-1",
        plan="basic",
        credits=credit,
        period_start=start,
        period_end=start + timedelta(days=30),
    )


async def test_the_models_are_what_the_migration_makes(books: Books) -> None:
    async with books.unit_of_work() as uow:
        for model in (Account, LedgerEntry, Order, OrderLine):
            columns = ", ".join(model.__table__.columns.keys())
            await uow.session.execute(text(f"SELECT {columns} FROM {model.__tablename__}"))


async def test_a_line_is_debited_once_however_often_its_order_comes(books: Books) -> None:
    for _ in range(3):
        await books.order("1", "a", "b")
    assert len(await books.debited()) == 2
    assert (await books.account()).balance == 8
    await books.check()


async def test_a_line_listed_twice_in_one_order_is_one_line(books: Books) -> None:
    await books.order("1", "a", "a")
    assert (await books.account()).balance == 9


async def test_an_order_without_lines_costs_nothing(books: Books) -> None:
    await books.order("1")
    assert (await books.account()).balance == 10


async def test_parts_of_ids_do_not_run_together(books: Books) -> None:
    await books.order("1:2", "3")
    await books.order("1", "2:3")
    assert len(set(await books.debited())) == 2


async def test_an_older_version_adds_its_lines_and_changes_nothing_else(books: Books) -> None:
    await books.order("1", "a", "b", at=5, title="new")
    await books.order("1", "a", "c", at=1, title="old")
    async with books.unit_of_work() as uow:
        lines = {line.line_id: line for line in await uow.session.scalars(select(OrderLine))}
        version = await uow.session.get_one(Order, (MERCHANT, "1"))
    assert {name: line.title for name, line in lines.items()} == {
        "a": "new",
        "b": "new",
        "c": "old",
    }
    assert version.revised_at == MORNING + timedelta(minutes=5)
    assert (await books.account()).balance == 7


async def test_a_newer_version_changes_lines_and_debits_only_new_ones(books: Books) -> None:
    await books.order("1", "a", at=1, title="old")
    await books.order("1", "a", "b", at=2, title="new")
    async with books.unit_of_work() as uow:
        titles = set(await uow.session.scalars(select(OrderLine.title)))
    assert titles == {"new"}
    assert (await books.account()).balance == 8


async def test_any_order_of_versions_comes_to_the_same(books: Books) -> None:
    versions = [("1", "a"), ("1", "a", "b"), ("1", "b", "c"), ("2", "a"), ("2",)] * 3
    chance = random.Random(7)
    chance.shuffle(versions)
    for at, (order_id, *lines) in enumerate(versions):
        await books.order(order_id, *lines, at=chance.randrange(at + 1))
    assert len(await books.debited()) == 4
    await books.check()


async def test_a_cancelled_order_is_no_longer_charged(books: Books) -> None:
    await books.order("1", "a", at=1)
    await books.order("1", "a", "b", at=2, cancelled=True)
    await books.order("2", "a", at=2, cancelled=True)
    await books.order("2", "a", at=1)
    assert (await books.account()).balance == 9


async def test_concurrent_orders_share_no_credit(books: Books) -> None:
    await asyncio.gather(*(books.order(str(n % 8), "a", "b") for n in range(24)))
    account = await books.account()
    assert account.balance == 0
    assert len(set(await books.debited())) == len(await books.debited()) == 10
    await books.check()
    await books.renew(10)
    assert len(await books.debited()) == 16
    assert (await books.account()).balance == 4
    await books.check()


async def test_when_credits_run_out_lines_wait_for_the_top_up_oldest_first(books: Books) -> None:
    await books.order("1", *"abcdefgh")
    await books.order("2", *"abc")
    await books.order("3", *"ab")
    assert (await books.account()).balance == 0
    assert len(await books.debited()) == 10
    await books.renew(2)
    debited = await books.debited()
    assert len(debited) == 12
    assert sum(reference.startswith("2") for reference in debited) == 3
    await books.renew(5, month=2)
    assert len(await books.debited()) == 13
    assert (await books.account()).balance == 4
    await books.check()


async def test_a_waiting_line_of_an_order_cancelled_meanwhile_is_not_charged(books: Books) -> None:
    await books.order("1", *"abcdefghij")
    await books.order("2", "a", at=1)
    await books.order("2", "a", at=2, cancelled=True)
    await books.renew(5)
    assert (await books.account()).balance == 5


async def test_an_allowed_overdraft_is_used_up_and_not_passed(books: Books) -> None:
    books.rules = CreditRules(trial=2, low_balance=0, overdraft=3)
    await books.order("1", *"abcdefg")
    assert (await books.account()).balance == -3
    await books.renew(1)
    assert (await books.account()).balance == -3
    assert len(await books.debited()) == 6
    await books.check()


async def test_a_period_is_paid_out_once(books: Books) -> None:
    for _ in range(2):
        await books.renew(5)
    await books.renew(5, month=2)
    assert (await books.account()).balance == 20


async def test_a_renewal_without_credits_changes_nothing(books: Books) -> None:
    await books.renew(0)
    assert (await books.account()).balance == 10


async def test_trial_credits_are_given_once_whoever_comes_first(books: Books) -> None:
    await books.order("1", "a")
    async with books.unit_of_work() as uow:
        ledger = await Ledger.open(uow, books.rules, MERCHANT, SHOP, trial=500)
        ledger.introduce(
            MerchantCreatedPayload(
                merchant_id=MERCHANT,
                merchant_domain=SHOP,
                shop_name="Blue Hat",
                contact_email="owner@blue-hat.example",
                created_at=MORNING,
            )
        )
    account = await books.account()
    assert account.balance == 9
    assert account.email == "owner@blue-hat.example"


async def test_concurrent_first_orders_open_one_account(books: Books) -> None:
    await asyncio.gather(*(books.order(str(n), "a") for n in range(8)))
    assert (await books.account()).balance == 2
    await books.check()


async def test_each_fall_to_the_mark_asks_for_one_mail(books: Books) -> None:
    await books.order("1", *"abcdef")
    assert await books.mails() == []
    await books.order("2", "a")  # 3: at the mark
    await books.order("3", "a")  # 2: still low
    assert await books.mails() == [f"low-balance:{MERCHANT}:1"]
    await books.renew(1)  # 3: still low, not armed again
    await books.order("4", "a")
    assert len(await books.mails()) == 1
    await books.renew(4, month=2)  # 6: armed
    await books.order("5", *"abc")  # 3
    assert await books.mails() == [f"low-balance:{MERCHANT}:{n}" for n in (1, 2)]
    assert (await books.account()).crossings == 2


async def test_an_account_that_opens_low_has_not_fallen(books: Books) -> None:
    books.rules = CreditRules(trial=3, low_balance=3)
    await books.order("1", "a")
    assert await books.mails() == []


# -- through the doors ------------------------------------------------------------------------


async def publish(application: Application[Any], contract: Any, payload: Any) -> None:
    """Publish as another service would: through an outbox that may publish anything."""
    async with UnitOfWork(application.database, service="test") as uow:
        uow.outbox.add(contract, payload)


async def test_events_in_and_the_account_over_http(start_credit: Start) -> None:
    async with start_credit(trial=5, low_balance=3) as application:
        await publish(application, ORDER_UPDATED, order("1", "a", "b"))
        await publish(application, ORDER_UPDATED, order("1", "a", "b", "c"))
        await publish(application, SUBSCRIPTION_RENEWED, renewal(4))
        await publish(
            application,
            MERCHANT_CREATED,
            MerchantCreatedPayload(
                merchant_id=MERCHANT,
                merchant_domain=SHOP,
                shop_name="Blue Hat",
                contact_email="owner@blue-hat.example",
                created_at=MORNING,
            ),
        )
        async with client_of(application) as client:

            async def all_booked() -> bool:
                answer = await client.get(f"/api/v1/accounts/{MERCHANT}")
                return answer.is_success and answer.json()["data"]["balance"] == 6

            await eventually(all_booked)
            account = (await client.get(f"/api/v1/accounts/{MERCHANT}")).json()["data"]
            assert account["plugin_status"] == "active"
            assert account["merchant_domain"] == SHOP
            assert account["unpaid_lines"] == 0

            async def five_entries() -> bool:
                page = await client.get(f"/api/v1/accounts/{MERCHANT}/ledger?limit=2")
                return bool(page.json()["pagination"]["total"] == 5)

            await eventually(five_entries)
            page = (await client.get(f"/api/v1/accounts/{MERCHANT}/ledger?limit=2")).json()
            assert [entry["position"] for entry in page["data"]] == [5, 4]
            assert page["data"][0]["balance"] == 6
            assert page["pagination"]["pages"] == 3
            assert page["links"]["next"].endswith("page=2&limit=2")


async def test_an_unknown_merchant_is_an_envelope(start_credit: Start) -> None:
    async with start_credit() as application, client_of(application) as client:
        for path in ("", "/ledger"):
            answer = await client.get(f"/api/v1/accounts/{uuid4()}{path}")
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "NOT_FOUND"


async def test_the_plugin_status_follows_the_balance(start_credit: Start) -> None:
    async with (
        start_credit(trial=3, low_balance=1) as application,
        client_of(application) as client,
    ):

        async def status() -> str:
            answer = await client.get(f"/api/v1/accounts/{MERCHANT}")
            return str(answer.json()["data"]["plugin_status"]) if answer.is_success else "none"

        for number, (lines, expected) in enumerate(
            [("a", "active"), ("b", "low"), ("cd", "suspended")]
        ):
            await publish(application, ORDER_UPDATED, order("1", *lines, at=number))

            async def is_expected(expected: str = expected) -> bool:
                return await status() == expected

            await eventually(is_expected)
        account = (await client.get(f"/api/v1/accounts/{MERCHANT}")).json()["data"]
        assert account["balance"] == 0
        assert account["unpaid_lines"] == 1
