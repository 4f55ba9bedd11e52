"""The first statement of a transaction: what it does, and what is heard of it, is as ever."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from shared.config import DatabaseSettings
from shared.context import Context, bind
from shared.database import Database, FailedTransactionError, tenant_scope
from shared.database.engine.first_statement import execute_first
from shared.database.engine.instrumentation import trace_statements

MERCHANT = "0192f0c1-2a00-7000-8000-000000000001"
INSERT = "INSERT INTO notes (owner, note) VALUES ($1, $2) ON CONFLICT DO NOTHING"


@pytest.fixture
async def notes(database_settings: DatabaseSettings) -> AsyncIterator[Database]:
    settings = database_settings.model_copy(
        update={
            "lock_timeout_seconds": 0.1,
            "pool_pre_ping": False,
            "pool_size": 2,
            "slow_query_seconds": 0.0,
        }
    )
    async with Database(settings, schema="notes", application_name="test-service") as database:
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE SCHEMA notes"))
            await connection.execute(
                text("CREATE TABLE notes (owner text, note text, PRIMARY KEY (owner, note))")
            )
        yield database
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def insert(session: AsyncSession, *values: str) -> int:
    return await session.run_sync(execute_first, INSERT, *values)


@asynccontextmanager
async def without_values(database: Database) -> AsyncIterator[list[str]]:
    """The messages to the server, within the block, that have no values beside their text."""
    messages: list[str] = []

    def log(query: object) -> None:
        messages.append(query.query)  # type: ignore[attr-defined]

    async with database.engine.connect() as connection:  # the only one of the pool
        driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None
    driver.add_query_logger(log)
    try:
        yield messages
    finally:
        await asyncio.sleep(0)
        driver.remove_query_logger(log)


async def all_notes(database: Database) -> list[tuple[str, str]]:
    async with database.transaction() as session:
        rows = await session.execute(text("SELECT owner, note FROM notes ORDER BY owner, note"))
        return [(row.owner, row.note) for row in rows]


async def test_the_statement_goes_with_begin(notes: Database) -> None:
    async with without_values(notes) as messages, notes.session() as session:
        assert await insert(session, "ada", "1") == 1
        assert await insert(session, "ada", "1") == 0
        assert await insert(session, "ada", "2") == 1
        await session.commit()
    together = "INSERT INTO notes (owner, note) VALUES ('ada', '1') ON CONFLICT DO NOTHING"
    assert messages == [f"BEGIN; {together}", "COMMIT;"]
    assert await all_notes(notes) == [("ada", "1"), ("ada", "2")]


@pytest.mark.parametrize(
    "note", ["", "it's", "a\\'b", "$1", "$2'; DROP TABLE notes; --", "naïve", "a b", "x\ny"]
)
async def test_values_that_would_need_quotes_go_beside_the_statement(
    notes: Database, note: str
) -> None:
    for expected in (1, 0):
        async with without_values(notes) as messages, notes.session() as session:
            assert await insert(session, "ada", note) == expected
            await session.commit()
        assert messages == ["BEGIN;", "COMMIT;"]
    assert await all_notes(notes) == [("ada", note)]


async def test_the_transaction_is_the_one_that_was_asked_for(notes: Database) -> None:
    async with notes.session(isolation="serializable") as session:
        assert await insert(session, "ada", "1") == 1
        assert await session.scalar(text("SHOW transaction_isolation")) == "serializable"
        await session.rollback()
    async with notes.session(read_only=True) as session:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            await insert(session, "ada", "1")
    assert await all_notes(notes) == []


async def test_a_statement_that_commits_by_itself_has_no_begin(notes: Database) -> None:
    async with without_values(notes) as messages, notes.session() as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        assert await insert(session, "ada", "1") == 1
    assert messages == []
    assert await all_notes(notes) == [("ada", "1")]


async def merchant_told(session: AsyncSession) -> str | None:
    told: str | None = await session.scalar(
        text("SELECT current_setting('glam.merchant_id', true)")
    )
    return told


async def test_the_merchant_is_told_in_the_same_message(notes: Database) -> None:
    async with without_values(notes) as messages:
        with tenant_scope(MERCHANT):
            async with notes.transaction() as session:
                assert await insert(session, "ada", "1") == 1
                assert await merchant_told(session) == MERCHANT
        async with notes.transaction() as session:
            assert await insert(session, "ada", "2") == 1
            assert not await merchant_told(session)
    begin, _commit, without_merchant, _commit_too = messages
    assert begin.startswith(
        f"BEGIN; SELECT set_config('glam.merchant_id', '{MERCHANT}', true); INSERT INTO"
    )
    assert "glam" not in without_merchant


async def test_behind_a_pooler_each_transaction_is_told_its_settings_in_the_same_message(
    notes: Database,
) -> None:
    settings = notes.settings.model_copy(update={"pgbouncer": True})
    async with Database(settings, schema="notes") as pooled:
        async with without_values(pooled) as messages, pooled.transaction() as session:
            with tenant_scope(MERCHANT):
                assert await insert(session, "ada", "1") == 1
                assert await merchant_told(session) == MERCHANT
        (begin, _commit) = messages
        assert begin.count("set_config") == 5
        assert begin.index("search_path") < begin.index("INSERT INTO notes")


async def test_a_merchant_that_was_not_told_in_the_end_is_nobody_elses(notes: Database) -> None:
    engine = notes.engine.sync_engine

    def refuse(_c: object, _k: object, statement: str, *_: object) -> None:
        if statement == INSERT:
            raise ZeroDivisionError

    event.listen(engine, "before_cursor_execute", refuse)
    async with notes.session() as session:
        with tenant_scope(MERCHANT), pytest.raises(ZeroDivisionError):
            await insert(session, "ada", "1")
        with tenant_scope(MERCHANT):
            assert await merchant_told(session) == MERCHANT
        await session.rollback()
        with tenant_scope(MERCHANT), pytest.raises(ZeroDivisionError):
            await insert(session, "ada", "1")
    event.remove(engine, "before_cursor_execute", refuse)
    async with notes.transaction() as session:
        assert await insert(session, "ada", "1") == 1
        assert not await merchant_told(session)


async def test_what_others_do_as_a_transaction_begins_is_done_as_ever(notes: Database) -> None:
    found: list[object] = []

    async with notes.session() as session:

        @event.listens_for(session.sync_session, "after_begin")
        def begun(_session: object, _transaction: object, connection: Connection) -> None:
            found.append(connection.scalar(text("SELECT 'a row'")))

        with tenant_scope(MERCHANT):
            assert await insert(session, "ada", "1") == 1
            assert await merchant_told(session) == MERCHANT
    assert found == ["a row"]


async def test_what_fails_in_it_fails_there_and_leaves_a_transaction_to_roll_back(
    notes: Database,
) -> None:
    async with notes.session() as first, notes.session() as second:
        await insert(first, "ada", "1")
        with pytest.raises(DBAPIError, match="lock timeout") as caught:
            await insert(second, "ada", "1")
        assert getattr(caught.value.orig, "sqlstate", None) == "55P03"
        with pytest.raises(FailedTransactionError, match="INSERT notes"):
            await second.commit()
        await second.rollback()
        await first.rollback()
        assert await insert(second, "ada", "1") == 1
        await second.commit()
    assert await all_notes(notes) == [("ada", "1")]


async def test_cancelled_while_it_waits_it_leaves_nothing_behind(
    database_settings: DatabaseSettings, notes: Database
) -> None:
    patient = database_settings.model_copy(update={"lock_timeout_seconds": 30.0, "pool_size": 1})

    async def wait(database: Database) -> None:
        async with database.transaction() as session:
            await insert(session, "ada", "1")

    async with Database(patient, schema="notes", application_name="patient") as database:
        async with notes.session() as first:
            await insert(first, "ada", "1")
            task = asyncio.create_task(wait(database))
            waiting = text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE application_name = 'patient' AND wait_event_type = 'Lock'"
            )
            async with notes.engine.connect() as watcher:
                while not await watcher.scalar(waiting):
                    await watcher.rollback()
                    await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await wait(database)
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await all_notes(notes) == [("ada", "1")]


async def test_a_lost_connection_is_one(notes: Database) -> None:
    async with notes.session() as session:
        connection = await session.connection()
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        async with notes.engine.connect() as other:
            await other.execute(
                text("SELECT pg_terminate_backend(:pid)"), {"pid": driver.get_server_pid()}
            )
        with pytest.raises(DBAPIError) as caught:
            await insert(session, "ada", "1")
        assert caught.value.connection_invalidated
    assert await all_notes(notes) == []


async def test_those_who_listen_hear_the_statement_without_its_values(
    notes: Database, caplog: pytest.LogCaptureFixture
) -> None:
    trace_statements(notes, logged=True)
    with caplog.at_level(logging.INFO), bind(Context.start(service="test-service")):
        async with notes.transaction() as session:
            assert await insert(session, "ada", "1") == 1
    slow = [r for r in caplog.records if r.getMessage() == "slow statement"]
    assert [getattr(record, "statement", None) for record in slow] == [INSERT]
    assert [m for m in caplog.messages if m.startswith("span")] == ["span INSERT notes"]
    assert "ada" not in caplog.text
