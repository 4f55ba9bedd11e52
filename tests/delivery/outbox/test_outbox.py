from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.context import Context, bind
from shared.delivery import UndeclaredContractError
from shared.errors import DatabaseError
from shared.events import Envelope
from shared.events.notification import SEND_EMAIL
from tests.delivery.world import COUNTED, Counted, World


class TableBase(DeclarativeBase):
    """A registry apart from that of models."""


class InboxRow(TableBase):
    __tablename__ = "inbox"

    subscriber: Mapped[str] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(primary_key=True)


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


async def test_savepoints_inside_savepoints_keep_what_was_not_undone(world: World) -> None:
    async with world.unit_of_work() as uow:
        session, add = uow.session, uow.outbox.add
        outer = await session.begin_nested()
        add(COUNTED, Counted(n=1))
        async with session.begin_nested():
            add(COUNTED, Counted(n=2))  # released, but what is around it is undone
        await outer.rollback()
        async with session.begin_nested():
            add(COUNTED, Counted(n=3))
            inner = await session.begin_nested()
            add(COUNTED, Counted(n=4))
            await inner.rollback()
            add(COUNTED, Counted(n=5))
        add(COUNTED, Counted(n=6))
    assert [rows_number(row.body) for row in await world.rows()] == [3, 5, 6]


async def test_a_savepoint_that_fails_when_it_is_released_takes_its_events_along(
    world: World,
) -> None:
    async with world.unit_of_work() as uow:
        uow.outbox.add(COUNTED, Counted(n=1))
        with pytest.raises(DBAPIError):  # noqa: PT012 - the release flushes, and fails
            async with uow.session.begin_nested():
                uow.outbox.add(COUNTED, Counted(n=2))
                uow.session.add(InboxRow(subscriber="one\0", message_id="m"))
    assert [rows_number(row.body) for row in await world.rows()] == [1]


async def test_what_a_listener_adds_while_the_transaction_commits_is_published(
    world: World,
) -> None:
    async with world.unit_of_work() as uow:
        uow.session.add(InboxRow(subscriber="one", message_id="m"))
        uow.outbox.add(COUNTED, Counted(n=1))

        @event.listens_for(uow.session.sync_session, "after_flush")
        def flushed(*_: object) -> None:
            uow_outbox.add(COUNTED, Counted(n=2))

        @event.listens_for(uow.session.sync_session, "before_commit")
        def committing(_: object) -> None:
            uow_outbox.add(COUNTED, Counted(n=3))

        uow_outbox = uow.outbox
    assert {rows_number(row.body) for row in await world.rows()} == {1, 2, 3}


async def test_nothing_of_a_transaction_that_was_closed_is_in_the_next(world: World) -> None:
    async with world.unit_of_work() as uow:
        await uow.session.execute(text("SELECT 1"))
        uow.outbox.add(COUNTED, Counted(n=1))
        await uow.session.rollback()
        uow.outbox.add(COUNTED, Counted(n=2))
        await uow.session.commit()
        uow.outbox.add(COUNTED, Counted(n=3))
    assert [rows_number(row.body) for row in await world.rows()] == [2, 3]


@pytest.mark.parametrize("writes", [False, True])
async def test_all_events_of_a_transaction_are_one_statement(world: World, *, writes: bool) -> None:
    statements: list[str] = []

    @event.listens_for(world.database.engine.sync_engine, "before_cursor_execute")
    def sent(_c: object, _k: object, statement: str, *_: object) -> None:
        statements.append(statement)

    async with world.unit_of_work() as uow:
        if writes:
            await uow.session.execute(text("SELECT 1"))
        for n in range(3):
            uow.outbox.add(COUNTED, Counted(n=n))
    assert ["outbox" in statement for statement in statements] == [False] * writes + [True]
    assert len(await world.rows()) == 3


async def test_events_alone_are_refused_by_a_transaction_that_only_reads(world: World) -> None:
    with pytest.raises(DatabaseError, match="read-only"):
        async with world.unit_of_work(read_only=True) as uow:
            uow.outbox.add(COUNTED, Counted(n=1))
    assert await world.rows() == []


async def test_a_header_that_could_not_be_sent_is_refused_where_it_is_added(world: World) -> None:
    async with world.unit_of_work() as uow:
        for name in ("", "X A", "X:A", "X-\u00c4"):
            with pytest.raises(ValueError, match="not a header name"):
                uow.outbox.add(COUNTED, Counted(n=1), headers={name: "1"})
        with pytest.raises(ValueError, match="X-A is not text"):
            uow.outbox.add(COUNTED, Counted(n=1), headers={"X-A": 1})  # type: ignore[dict-item]
    assert await world.rows() == []


async def test_headers_of_a_received_message_may_be_sent_on(world: World) -> None:
    received = {
        "X-A": "1",
        "Nats-Expected-Last-Sequence": "99",
        "nats-expected-last-subject-sequence": "98",
        "Nats-Rollup": "all",
        "Nats-Batch-Id": "b",
    }
    await world.add(1)
    await world.add(2, headers=received)
    assert await world.relay().drain()
    ((_, one), (_, two)) = await world.messages()
    assert "X-A" not in one
    assert two["X-A"] == "1"
    assert two.get("Nats-Expected-Last-Subject-Sequence") != "98"
    assert not two.keys() & received.keys() - {"X-A", "Nats-Batch-Id"}
