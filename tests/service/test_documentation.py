"""The how-to's block about order runs as printed."""

import re
import sys
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID

import pytest

from shared.config import DatabaseSettings, NatsSettings
from shared.delivery import UnitOfWork
from shared.errors import ConflictError
from shared.events import Envelope
from shared.events.credit import ORDER_UPDATED, OrderUpdatedPayload
from shared.messaging import OutgoingMessage
from shared.testing import eventually

from .test_application import running

PAGE = Path(__file__).parents[2] / "docs" / "how-to.md"
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
