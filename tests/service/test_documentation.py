"""The how-to's block about order, and the page about messages, run as printed."""

import asyncio
import re
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from shared.config import DatabaseSettings, NatsSettings
from shared.delivery import UnitOfWork
from shared.errors import ConflictError
from shared.events import Envelope
from shared.events.credit import ORDER_UPDATED, OrderUpdatedPayload
from shared.messaging import DeadLetters, OutgoingMessage
from shared.messaging.consuming.in_flight import TRANSITIONS
from shared.service import Service
from shared.testing import eventually

from .test_application import running

if TYPE_CHECKING:
    from shared.service import Service

PAGE = Path(__file__).parents[2] / "docs" / "how-to.md"
MESSAGES = PAGE.with_name("messages.md")
TITLE = "## Handle the messages of one key in order"


async def test_the_orders_of_a_merchant_are_debited_one_after_the_other(
    database_settings: DatabaseSettings,
    nats_settings: NatsSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    debited: dict[UUID, list[str]] = defaultdict(list)
    failed = False

    async def debit(uow: UnitOfWork, order: OrderUpdatedPayload) -> None:
        nonlocal failed
        assert uow.session.in_transaction()
        if order.order_id == "3" and not failed:
            failed = True
            raise ConflictError("not yet")
        debited[order.merchant_id].append(order.order_id)

    ledger = ModuleType("ledger")
    vars(ledger)["debit"] = debit
    monkeypatch.setitem(sys.modules, "ledger", ledger)
    found = re.search(rf"{TITLE}\n\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {"__name__": __name__}
    exec(compile(found[1], str(PAGE), "exec"), names)
    merchants = [UUID(int=1), UUID(int=2)]
    async with running(names["service"], database_settings, nats_settings) as (application, _):
        await application.bus.publisher.publish_all(
            [_order(merchant, str(number)) for number in range(6) for merchant in merchants]
        )
        await eventually(lambda: sum(map(len, debited.values())) == 12)
    assert failed
    assert debited == {merchant: [str(number) for number in range(6)] for merchant in merchants}


async def test_what_is_not_signed_is_refused_and_what_the_service_publishes_is_signed(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    page = MESSAGES.read_text()
    names: dict[str, Any] = {"__name__": __name__}
    for block in re.findall(r"```python\n((?:import|from) .*?)```", page, re.DOTALL):
        exec(compile(block, str(MESSAGES), "exec"), names)
    service: Service = names["service"]  # of the second block, with the first one's step added
    service.middleware.append(names["only_signed"])
    handled: list[str] = []

    @service.handles(ORDER_UPDATED)
    async def debit(order: OrderUpdatedPayload) -> None:
        handled.append(order.order_id)

    async with running(service, database_settings, nats_settings) as (application, _):
        await application.bus.publisher.publish(_order(UUID(int=1), "signed"))
        await application.bus.publisher.plain.publish(_order(UUID(int=1), "forged"))
        letters = DeadLetters(application.bus)
        await eventually(lambda: len(handled) == 1)
        while not (found := await letters.list()):
            await asyncio.sleep(0.01)
    assert handled == ["signed"]
    assert found[0].error_message == "the message is not signed by one of us"


def test_the_table_of_states_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| (\w+) \| ([\w, ]*?) ?\|$", MESSAGES.read_text(), re.MULTILINE)
    told = {before: set(after.split(", ")) - {""} for before, after in rows if before != "from"}
    assert told == {
        str(before): {str(after) for after in following}
        for before, following in TRANSITIONS.items()
    }


def _order(merchant: UUID, order_id: str) -> OutgoingMessage:
    order = OrderUpdatedPayload(
        merchant_id=merchant,
        merchant_domain="ada.example.com",
        order_id=order_id,
        order_name=order_id,
        currency="EUR",
        updated_at=datetime.now(UTC),
        lines=[],
    )
    envelope = Envelope.create(ORDER_UPDATED, order, source_service="webhook-service")
    return OutgoingMessage(
        ORDER_UPDATED.subject, envelope.encode(), envelope.headers(), envelope.message_id
    )
