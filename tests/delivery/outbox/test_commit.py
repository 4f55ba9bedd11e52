"""Units of work that only add events, committed at the same time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event, text

from shared.context import Context, bind
from shared.database import Database
from shared.database.engine.instrumentation import trace_statements
from shared.delivery import CommitInDoubtError
from shared.errors import DatabaseError, ValidationError
from shared.events import Envelope
from shared.testing import eventually
from shared.tracing import FinishedSpan, export_to
from tests.delivery.world import COUNTED, Counted, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.delivery import UnitOfWork

_HOLD_BACK = """\
CREATE FUNCTION hold_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.key = 'held' THEN PERFORM pg_advisory_xact_lock_shared(7); END IF;
  RETURN NEW;
END $$"""


async def commit(world: World, n: int, unit: UnitOfWork | None = None, **options: object) -> None:
    async with unit or world.unit_of_work() as uow:
        uow.outbox.add(COUNTED, Counted(n=n), **options)  # type: ignore[arg-type]


@asynccontextmanager
async def holding_back(world: World) -> AsyncIterator[None]:
    """Let no message with the key 'held' be written within the block."""
    async with world.database.transaction() as session:
        await session.execute(text(_HOLD_BACK))
        await session.execute(
            text(
                "CREATE TRIGGER hold_back BEFORE INSERT ON outbox"
                " FOR EACH ROW EXECUTE FUNCTION hold_back()"
            )
        )
    async with world.database.transaction() as session:
        await session.execute(text("SELECT pg_advisory_xact_lock(7)"))
        yield


async def held(world: World) -> list[int]:
    """The backends that are held back."""
    async with world.database.transaction() as session:
        pids = await session.scalars(
            text("SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory'")
        )
        return list(pids)


async def is_held(world: World) -> bool:
    return bool(await held(world))


async def test_those_that_end_at_once_are_written_by_few_statements(world: World) -> None:
    statements: list[str] = []

    @event.listens_for(world.database.engine.sync_engine, "before_cursor_execute")
    def sent(_c: object, _k: object, statement: str, *_: object) -> None:
        statements.append(statement)

    async def several(start: int) -> None:
        for n in range(start, start + 3):
            await commit(world, n, key=f"k-{start}")

    await asyncio.gather(*(several(start) for start in range(0, 60, 3)))
    assert 3 <= len(statements) < 30
    rows = await world.rows()
    assert len({row.event_id for row in rows}) == 60
    async with asyncio.timeout(120):
        assert await world.relay().drain()
    published = await world.numbers()
    assert sorted(published) == list(range(60))
    for start in range(0, 60, 3):  # each task's own in the order it added them
        assert [n for n in published if start <= n < start + 3] == [start, start + 1, start + 2]


async def test_what_postgresql_refuses_of_one_fails_for_that_one_alone(world: World) -> None:
    units = [world.unit_of_work() for _ in range(10)]
    headers = [{"X-Note": "\0" if n == 4 else "good"} for n in range(10)]
    answers = await asyncio.gather(
        *(commit(world, n, units[n], headers=headers[n]) for n in range(10)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers if answer is not None] == [ValidationError]
    assert isinstance(answers[4], ValidationError)
    assert [unit.committed for unit in units] == [n != 4 for n in range(10)]
    assert len(await world.rows()) == 9


async def test_a_statement_that_stands_still_holds_up_nobody_behind_it(world: World) -> None:
    async with holding_back(world):
        first = asyncio.create_task(commit(world, 0, key="held"))
        await eventually(lambda: is_held(world))
        await asyncio.gather(*(commit(world, n) for n in range(1, 5)))
        assert len(await world.rows()) == 4
        assert not first.done()
    await first
    assert len(await world.rows()) == 5


async def test_a_connection_lost_in_it_leaves_all_of_them_in_doubt(world: World) -> None:
    units = [world.unit_of_work() for _ in range(4)]
    async with holding_back(world):
        first = asyncio.create_task(commit(world, 0, key="held"))
        await asyncio.sleep(0)
        tasks = [asyncio.create_task(commit(world, n, units[n], key="held")) for n in range(4)]
        await eventually(lambda: is_held(world))
        while not all(task.done() for task in (first, *tasks)):
            for pid in await held(world):
                async with world.database.transaction() as session:
                    await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        answers = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [CommitInDoubtError] * 5
    assert [unit.committed for unit in units] == [None] * 4
    assert await world.rows() == []
    await commit(world, 5)
    assert len(await world.rows()) == 1


async def test_without_a_connection_each_is_told_that_nothing_was_committed(world: World) -> None:
    settings = world.database.settings.model_copy(update={"port": 1})
    async with Database(settings, schema="credit") as away:
        there = World(away, world.bus)
        units = [there.unit_of_work() for _ in range(4)]
        answers = await asyncio.gather(
            *(commit(there, n, units[n]) for n in range(4)), return_exceptions=True
        )
    assert all(isinstance(answer, DatabaseError) and answer.retryable for answer in answers)
    assert not any(isinstance(answer, CommitInDoubtError) for answer in answers)
    assert [unit.committed for unit in units] == [False] * 4


async def test_cancelled_while_another_is_written_it_waits_and_knows_its_end(world: World) -> None:
    unit = world.unit_of_work()
    async with holding_back(world):
        first = asyncio.create_task(commit(world, 0, key="held"))
        await eventually(lambda: is_held(world))
        task = asyncio.create_task(commit(world, 1, unit, key="held"))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
    await first
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unit.committed is True
    assert len(await world.rows()) == 2


async def test_the_statement_is_a_span_of_the_first_of_them(world: World) -> None:
    taken: list[FinishedSpan] = []

    class Taker:
        def export(self, span: FinishedSpan) -> None:
            taken.append(span)

    trace_statements(world.database)
    export_to(Taker())
    try:
        async with holding_back(world):
            with bind(Context.start()) as one:
                first = asyncio.create_task(commit(world, 0, key="held"))
            await eventually(lambda: is_held(world))
            with bind(Context.start()) as two:
                await commit(world, 1)
        await first
    finally:
        export_to(None)
    spans = [span for span in taken if span.name.startswith("INSERT outbox")]
    assert [span.context.trace_id for span in spans] == [two.trace.trace_id, one.trace.trace_id]


async def test_cancelled_at_any_moment_it_knows_whether_its_event_is_there(world: World) -> None:
    for turns in range(40):
        unit = world.unit_of_work()
        task = asyncio.create_task(commit(world, turns, unit))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        there = [Envelope.decode(row.body).payload["n"] for row in await world.rows()]
        assert unit.committed is (turns in there)
