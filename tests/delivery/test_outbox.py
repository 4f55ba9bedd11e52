from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from shared.context import Context, bind
from shared.delivery import UndeclaredContractError
from shared.events import Envelope
from shared.events.notification import SEND_EMAIL
from tests.delivery.world import COUNTED, Counted, World


async def test_a_row_holds_all_that_is_published(world: World) -> None:
    with bind(Context.start(correlation_id="c-1", tenant_id="shop-1")) as context:
        (envelope,) = await world.add(1, key="m-1", idempotency_key="once", headers={"X-Own": "y"})
    (row,) = await world.rows()
    assert row.event_id == envelope.event_id
    assert row.subject == "evt.credit.counted"
    assert row.key == "m-1"
    assert row.message_id == envelope.message_id
    assert "once" in row.message_id
    assert row.body == envelope.encode()
    assert row.headers["traceparent"] == context.trace.traceparent
    assert row.headers["X-Correlation-ID"] == "c-1"
    assert row.headers["X-Own"] == "y"
    assert (row.attempts, row.published_at, row.stream_sequence) == (0, None, None)
    assert envelope.metadata["source_service"] == "credit-service"


async def test_a_delayed_row_is_available_later_by_the_clock_of_the_database(world: World) -> None:
    await world.add(1, delay=timedelta(hours=1))
    async with world.database.transaction() as session:
        wait = await session.scalar(text("SELECT available_at - now() FROM outbox"))
    assert timedelta(minutes=59) < wait <= timedelta(hours=1)


async def test_what_is_not_declared_is_refused_with_the_line_to_add(world: World) -> None:
    async with world.unit_of_work(publishes=[SEND_EMAIL]) as uow:
        with pytest.raises(UndeclaredContractError) as caught:
            uow.outbox.add(COUNTED, Counted(n=1))
    assert "Service('credit-service', publishes=[..., COUNTED])" in str(caught.value)
    assert await world.rows() == []


async def test_declared_is_enough(world: World) -> None:
    async with world.unit_of_work(publishes=[COUNTED]) as uow:
        uow.outbox.add(COUNTED, Counted(n=1))
    assert len(await world.rows()) == 1


async def test_rows_keep_the_order_of_add_across_flushes(world: World) -> None:
    async with world.unit_of_work() as uow:
        for n in range(50):
            uow.outbox.add(COUNTED, Counted(n=n))
            if n % 7 == 0:
                await uow.session.flush()
    rows: list[Any] = await world.rows()
    assert [row.body for row in rows] == sorted((r.body for r in rows), key=rows_number)


def rows_number(body: bytes) -> int:
    number: int = Envelope.decode(body).payload["n"]
    return number


async def test_an_event_of_a_savepoint_that_rolled_back_is_gone(world: World) -> None:
    async with world.unit_of_work() as uow:
        uow.outbox.add(COUNTED, Counted(n=1))
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with uow.session.begin_nested():
                uow.outbox.add(COUNTED, Counted(n=2))
                raise ZeroDivisionError
    assert [rows_number(row.body) for row in await world.rows()] == [1]
