"""Transactions beyond the plain one: savepoints, isolation, trying again, cancellation."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest
from sqlalchemy import text

from shared.database import FailedTransactionError
from shared.delivery import CommitInDoubtError, UnitOfWorkFactory, run_unit_of_work
from shared.errors import ConflictError, DatabaseError, NotFoundError
from tests.delivery.world import COUNTED, SERVICE, Counted, World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.delivery import UnitOfWork


@pytest.fixture
async def units(world: World) -> UnitOfWorkFactory:
    async with world.database.transaction() as session:
        await session.execute(text("CREATE TABLE sums (name text PRIMARY KEY, n int NOT NULL)"))
        await session.execute(text("INSERT INTO sums VALUES ('a', 0), ('b', 0)"))
    return UnitOfWorkFactory(world.database, service=SERVICE, notify=False)


async def sums(world: World) -> dict[str, int]:
    async with world.database.transaction() as session:
        rows = await session.execute(text("SELECT name, n FROM sums"))
        return {row.name: row.n for row in rows}


async def test_a_savepoint_undoes_its_own_rows_and_messages_only(
    world: World, units: UnitOfWorkFactory
) -> None:
    async with units() as uow:
        uow.outbox.add(COUNTED, Counted(n=1))
        await uow.session.execute(text("UPDATE sums SET n = 1 WHERE name = 'a'"))
        with pytest.raises(ConflictError):  # noqa: PT012
            async with uow.savepoint():
                uow.outbox.add(COUNTED, Counted(n=2))
                await uow.session.execute(text("UPDATE sums SET n = 2 WHERE name = 'a'"))
                await uow.session.execute(text("INSERT INTO sums VALUES ('b', 1)"))
        async with uow.savepoint():
            uow.outbox.add(COUNTED, Counted(n=3))
    assert await sums(world) == {"a": 1, "b": 0}
    assert [row.body.count(b'"n":2') for row in await world.rows()] == [0, 0]


async def test_read_only_is_refused_to_write_by_postgresql(units: UnitOfWorkFactory) -> None:
    with pytest.raises(DatabaseError, match="read-only"):
        async with units(read_only=True) as uow:
            await uow.session.execute(text("DELETE FROM sums"))
    async with units() as uow:  # the connection does not stay so
        await uow.session.execute(text("DELETE FROM sums"))


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
async def test_isolation_is_that_of_this_transaction(
    units: UnitOfWorkFactory, isolation: str
) -> None:
    level = text("SHOW transaction_isolation")
    async with units(isolation=isolation) as uow:  # type: ignore[arg-type]
        assert await uow.session.scalar(level) == isolation
    async with units() as uow:
        assert await uow.session.scalar(level) == "read committed"


async def test_an_unknown_isolation_says_which_there_are(units: UnitOfWorkFactory) -> None:
    with pytest.raises(ValueError, match="serializable"):
        async with units(isolation="snapshot"):  # type: ignore[arg-type]
            pass


async def test_conflicting_serializable_work_is_done_again_as_a_whole(
    world: World, units: UnitOfWorkFactory
) -> None:
    attempts = 0

    async def add(uow: UnitOfWork) -> None:
        nonlocal attempts
        attempts += 1
        n = await uow.session.scalar(text("SELECT n FROM sums WHERE name = 'a'"))
        await asyncio.sleep(0.01)
        uow.outbox.add(COUNTED, Counted(n=n))
        await uow.session.execute(text("UPDATE sums SET n = :n WHERE name = 'a'"), {"n": n + 1})

    await asyncio.gather(*(units.run(add, isolation="serializable", attempts=50) for _ in range(8)))
    assert (await sums(world))["a"] == 8
    assert len(await world.rows()) == 8
    assert attempts > 8


async def test_a_deadlock_is_broken_and_the_victim_done_again(
    world: World, units: UnitOfWorkFactory
) -> None:
    met = asyncio.Barrier(2)

    def both(first: str, second: str) -> Callable[[UnitOfWork], Awaitable[None]]:
        tries = 0

        async def work(uow: UnitOfWork) -> None:
            nonlocal tries
            tries += 1
            for name in (first, second):
                await uow.session.execute(
                    text("UPDATE sums SET n = n + 1 WHERE name = :name"), {"name": name}
                )
                if tries == 1 and name == first:
                    await met.wait()

        return work

    await asyncio.gather(units.run(both("a", "b")), units.run(both("b", "a")))
    assert await sums(world) == {"a": 2, "b": 2}


async def test_what_is_no_conflict_is_not_tried_again(units: UnitOfWorkFactory) -> None:
    calls = 0

    async def work(uow: UnitOfWork) -> None:
        nonlocal calls
        calls += 1
        raise NotFoundError("no such thing")

    with pytest.raises(NotFoundError):
        await units.run(work)
    assert calls == 1
    with pytest.raises(ValueError, match="1 or more"):
        await units.run(work, attempts=0)


async def test_the_last_attempts_conflict_is_raised(units: UnitOfWorkFactory) -> None:
    calls = 0

    async def work(uow: UnitOfWork) -> None:
        nonlocal calls
        calls += 1
        await uow.session.execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))

    with pytest.raises(DatabaseError) as caught:
        await run_unit_of_work(units, work, attempts=3)
    assert caught.value.error_code == "40001"
    assert calls == 3


@pytest.mark.parametrize("with_message", [False, True])
async def test_a_failed_statement_that_was_passed_over_is_not_told_as_committed(
    world: World, units: UnitOfWorkFactory, *, with_message: bool
) -> None:
    woken: list[None] = []
    unit = world.unit_of_work(on_commit=lambda: woken.append(None))
    with pytest.raises(FailedTransactionError, match="savepoint"):  # noqa: PT012
        async with unit as uow:
            await uow.session.execute(text("UPDATE sums SET n = 1"))
            if with_message:
                uow.outbox.add(COUNTED, Counted(n=1))
                await uow.session.flush()
            with suppress(Exception):
                await uow.session.execute(text("INSERT INTO sums VALUES ('a', 1)"))
    assert unit.committed is False
    assert woken == []
    assert await world.rows() == []
    assert await sums(world) == {"a": 0, "b": 0}


async def make_commits_slow(world: World) -> None:
    async with world.database.transaction() as session:
        function = (
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$"
        )
        trigger = (
            "CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON sums DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION slow()"
        )
        await session.execute(text(function))
        await session.execute(text(trigger))


async def test_cancelled_in_the_commit_it_waits_for_the_end_and_knows_it(
    world: World, units: UnitOfWorkFactory
) -> None:
    await make_commits_slow(world)
    unit = units()

    async def work() -> None:
        async with unit as uow:
            await uow.session.execute(text("UPDATE sums SET n = 5 WHERE name = 'a'"))
            leaving.set()

    leaving = asyncio.Event()
    task = asyncio.create_task(work())
    await leaving.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert unit.committed is True
    assert (await sums(world))["a"] == 5


async def test_a_connection_lost_in_the_commit_leaves_it_in_doubt(
    world: World, units: UnitOfWorkFactory
) -> None:
    await make_commits_slow(world)
    unit = units()

    pid, leaving = 0, asyncio.Event()

    async def work() -> None:
        nonlocal pid
        async with unit as uow:
            pid = await uow.session.scalar(text("SELECT pg_backend_pid()"))
            await uow.session.execute(text("UPDATE sums SET n = 5 WHERE name = 'a'"))
            leaving.set()

    task = asyncio.create_task(work())
    await leaving.wait()
    await asyncio.sleep(0.05)
    async with world.database.transaction() as session:
        await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    with pytest.raises(CommitInDoubtError) as caught:
        await task
    assert caught.value.retryable
    assert unit.committed is None


async def test_a_conflict_found_by_the_commit_is_no_doubt(units: UnitOfWorkFactory) -> None:
    unit = units()
    with pytest.raises(ConflictError):  # noqa: PT012
        async with unit as uow:
            await uow.session.execute(
                text("CREATE TABLE d (n int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
            )
            await uow.session.execute(text("INSERT INTO d VALUES (1), (1)"))
    assert unit.committed is False


async def test_a_handler_that_waits_for_http_holds_no_connection(
    world: World, units: UnitOfWorkFactory
) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        asked.set()
        await answer.wait()
        return httpx.Response(200)

    async def handler() -> None:
        async with units() as uow:
            async with httpx.AsyncClient(transport=httpx.MockTransport(slow)) as client:
                await client.get("http://elsewhere")
            await uow.session.execute(text("UPDATE sums SET n = 1"))

    async def reader() -> None:
        async with units() as uow:
            await uow.session.execute(text("SELECT * FROM sums"))
            await uow.release()
            async with httpx.AsyncClient(transport=httpx.MockTransport(slow)) as client:
                await client.get("http://elsewhere")
            await uow.session.execute(text("UPDATE sums SET n = n + 1"))

    for work in (handler, reader):
        asked.clear()
        answer.clear()
        task = asyncio.create_task(work())
        await asked.wait()
        assert world.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        answer.set()
        await task
    assert await sums(world) == {"a": 2, "b": 2}


async def test_what_was_written_is_not_released(world: World, units: UnitOfWorkFactory) -> None:
    async with units() as uow:
        await uow.session.execute(text("UPDATE sums SET n = 1"))
        with pytest.raises(RuntimeError, match="has written"):
            await uow.release()
    async with units() as uow:
        uow.outbox.add(COUNTED, Counted(n=1))
        with pytest.raises(RuntimeError, match="has written"):
            await uow.release()
    async with units() as uow:
        await uow.release()  # nothing to give back
    assert len(await world.rows()) == 1
