"""Our own services pass the suites; a service that breaks a rule does not."""

import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from services.credit.models import Account
from services.credit.service import service as credit_service
from shared.database import Database
from shared.testing.suites import (
    DeadLetterSuite,
    HandlerSuite,
    InboxSuite,
    OutboxSuite,
    RepositorySuite,
    TransportSuite,
)
from tests.testing import order_flow
from tests.testing.order_flow import TAKEN, Taken


class Orders:
    """What the suites ask about the service of these tests."""

    service = order_flow.service
    contract = TAKEN

    def payload(self, number: int) -> Taken:
        return Taken(scenario=str(number))

    async def prepare(self, database: Database) -> None:
        async with database.transaction() as session:
            for statement in order_flow.TABLES.split(";")[1:-1]:
                await session.execute(text(statement))

    async def effects(self, session: AsyncSession, payload: Taken) -> int:
        count = await session.scalar(
            text("SELECT count(*) FROM proof.effects WHERE scenario = :scenario"),
            payload.model_dump(),
        )
        return int(count or 0)


class TestTransport(Orders, TransportSuite):
    pass


class TestOutbox(Orders, OutboxSuite):
    pass


class TestInbox(Orders, InboxSuite):
    pass


class TestHandler(Orders, HandlerSuite):
    pass


class TestDeadLetters(Orders, DeadLetterSuite):
    pass


class TestAccounts(RepositorySuite):
    service = credit_service
    model = Account

    def make(self, number: int) -> Account:
        return Account(
            merchant_id=UUID(int=number),
            merchant_domain=f"shop{number}.example",
            balance=0,
            entries=0,
            crossings=0,
        )


BROKEN = '''
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import Database
from shared.events import Contract, Envelope
from shared.service import Service
from shared.testing.suites import HandlerSuite


class Paid(BaseModel):
    number: int


PAID = Contract("evt.credit.paid", Paid)
service = Service("broken-service")


@service.handles(PAID, ack_wait_seconds=0.5)
async def pay(paid: Paid, database: Database) -> None:
    """Takes no unit of work, so nothing keeps it from doing its work twice."""
    async with database.transaction() as session:
        await session.execute(text("INSERT INTO paid VALUES (:number)"), paid.model_dump())


class TestPaid(HandlerSuite):
    service = service
    contract = PAID

    def payload(self, number: int) -> Paid:
        return Paid(number=number)

    async def prepare(self, database: Database) -> None:
        async with database.transaction() as session:
            await session.execute(text("CREATE TABLE paid (number int)"))

    async def effects(self, session: AsyncSession, payload: Paid) -> int:
        query = text("SELECT count(*) FROM paid WHERE number = :number")
        return await session.scalar(query, payload.model_dump())
'''


@pytest.mark.servers
@pytest.mark.parametrize("mode", ["strict"])
def test_a_handler_that_does_its_work_twice_is_caught(tmp_path: Path, mode: str) -> None:
    (tmp_path / "test_paid.py").write_text(BROKEN)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"),
            *("-p", "no:schemathesis"),  # seconds of import, and not needed
            *("-o", f"asyncio_mode={mode}", "--rootdir", str(tmp_path), "-q"),
            *(str(tmp_path), "-k", "delivered_twice or kept_and_the_rest"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "assert 2 == 1" in done.stdout
