import asyncio
from contextlib import nullcontext, suppress

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from shared.database import current_session, tenant_scope
from shared.errors import ConflictError, DatabaseError
from tests.delivery.world import COUNTED, Counted, World

TENANT = "0192f0c1-2a00-7000-8000-000000000001"
NOTE_TENANT = """\
CREATE FUNCTION note_tenant() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO told VALUES (nullif(current_setting('glam.merchant_id', true), ''));
  RETURN NULL;
END $$"""


async def test_rollback_leaves_neither_row_nor_event(world: World) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with world.unit_of_work() as uow:
            await uow.session.execute(text("CREATE TABLE made (n int)"))
            uow.outbox.add(COUNTED, Counted(n=1))
            raise ZeroDivisionError
    assert await world.rows() == []
    async with world.database.transaction() as session:
        assert await session.scalar(text("SELECT to_regclass('made')")) is None


async def test_on_commit_is_called_after_the_commit_and_only_for_events(world: World) -> None:
    calls: list[str] = []
    async with world.unit_of_work(on_commit=lambda: calls.append("woken")) as uow:
        await uow.session.execute(text("SELECT 1"))
    assert calls == []
    async with world.unit_of_work(on_commit=lambda: calls.append("woken")) as uow:
        uow.outbox.add(COUNTED, Counted(n=1))
        assert calls == []
    assert calls == ["woken"]
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with world.unit_of_work(on_commit=lambda: calls.append("woken")) as uow:
            uow.outbox.add(COUNTED, Counted(n=1))
            raise ZeroDivisionError
    assert calls == ["woken"]


async def test_no_connection_is_taken_before_the_first_statement(world: World) -> None:
    async with world.unit_of_work():
        assert world.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_the_session_is_current_inside_only(world: World) -> None:
    async with world.unit_of_work() as uow:
        assert current_session() is uow.session
    assert current_session() is None
    with pytest.raises(RuntimeError, match="async with"):
        _ = uow.session


async def test_a_conflict_at_the_commit_is_ours(world: World) -> None:
    async with world.database.transaction() as session:
        await session.execute(
            text("CREATE TABLE names (name text UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        )
    with pytest.raises(ConflictError) as caught:  # noqa: PT012
        async with world.unit_of_work() as uow:
            await uow.session.execute(text("INSERT INTO names VALUES ('a'), ('a')"))
            uow.outbox.add(COUNTED, Counted(n=1))
    assert caught.value.details["constraint"] == "names_name_key"
    assert await world.rows() == []


async def test_a_drivers_error_is_its_own_inside_and_ours_outside(world: World) -> None:
    async with world.database.transaction() as session:
        await session.execute(text("CREATE TABLE names (name text UNIQUE)"))
    with pytest.raises(ConflictError) as caught:  # noqa: PT012
        async with world.unit_of_work() as uow:
            with pytest.raises(IntegrityError) as inner:
                await uow.session.execute(text("INSERT INTO names VALUES ('a'), ('a')"))
            raise inner.value
    assert caught.value.__cause__ is inner.value


async def test_cancellation_rolls_back_and_leaks_no_connection(world: World) -> None:
    async def work() -> None:
        async with world.unit_of_work() as uow:
            uow.outbox.add(COUNTED, Counted(n=1))
            await uow.session.flush()
            inside.set()
            await asyncio.sleep(60)

    inside = asyncio.Event()
    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await world.rows() == []


async def test_cancellation_at_any_moment_leaks_no_connection(world: World) -> None:
    async def work() -> None:
        async with world.unit_of_work() as uow:
            await uow.session.execute(text("SELECT 1"))
            uow.outbox.add(COUNTED, Counted(n=1))

    committed = 0
    for turns in range(120):
        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        committed += not task.cancelled()
        if world.database.engine.pool.checkedout():  # type: ignore[attr-defined]
            # The rollback goes on behind the cancelled task.
            async with asyncio.timeout(120):
                while world.database.engine.pool.checkedout():  # type: ignore[attr-defined]
                    await asyncio.sleep(0.01)
    assert len(await world.rows()) >= committed


async def test_a_backend_that_dies_inside_is_a_retryable_error(world: World) -> None:
    with pytest.raises(DatabaseError) as caught:  # noqa: PT012
        async with world.unit_of_work() as uow:
            uow.outbox.add(COUNTED, Counted(n=1))
            await uow.session.flush()
            pid = await uow.session.scalar(text("SELECT pg_backend_pid()"))
            async with world.database.transaction() as session:
                await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
    assert caught.value.retryable
    assert await world.rows() == []


async def test_it_serves_once_at_a_time(world: World) -> None:
    async with world.unit_of_work() as uow:
        with pytest.raises(RuntimeError, match="already"):
            await uow.__aenter__()


async def test_what_was_added_before_the_first_statement_shares_its_transaction(
    world: World,
) -> None:
    async with world.unit_of_work() as uow:
        uow.outbox.add(COUNTED, Counted(n=1))
        await uow.session.execute(text("CREATE TABLE made (n int)"))
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with world.unit_of_work() as uow:
            uow.outbox.add(COUNTED, Counted(n=2))
            await uow.session.execute(text("INSERT INTO made VALUES (2)"))
            raise ZeroDivisionError
    async with world.unit_of_work() as uow:
        uow.outbox.add(COUNTED, Counted(n=3))
        with suppress(ZeroDivisionError):
            async with uow.savepoint():
                uow.outbox.add(COUNTED, Counted(n=4))
                raise ZeroDivisionError
    assert len(await world.rows()) == 2
    async with asyncio.timeout(120):
        assert await world.relay().drain()
    assert await world.numbers() == [1, 3]


async def test_a_session_that_was_asked_for_and_not_used_holds_nothing_up(world: World) -> None:
    async with world.unit_of_work() as uow:
        assert not uow.session.in_transaction()
        uow.outbox.add(COUNTED, Counted(n=1))
    assert uow.committed
    assert len(await world.rows()) == 1
    async with world.unit_of_work() as uow:
        pass
    assert uow.committed


async def test_events_alone_are_written_for_the_tenant_they_are_added_for(world: World) -> None:
    async with world.database.transaction() as session:
        await session.execute(text("CREATE TABLE told (tenant text)"))
        await session.execute(text(NOTE_TENANT))
        await session.execute(
            text("CREATE TRIGGER note AFTER INSERT ON outbox EXECUTE FUNCTION note_tenant()")
        )
    for scope in (nullcontext(), tenant_scope(TENANT), nullcontext()):
        with scope:
            async with world.unit_of_work() as uow:
                uow.outbox.add(COUNTED, Counted(n=1))
    async with world.database.transaction() as session:
        told = await session.scalars(text("SELECT coalesce(tenant, '') FROM told"))
        assert list(told) == ["", TENANT, ""]
