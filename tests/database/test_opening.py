"""A statement that opens its transaction: what it does, and what is heard of it, is as ever."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from shared.config import DatabaseSettings
from shared.context import Context, bind
from shared.database import Database, FailedTransactionError, tenant_scope
from shared.database.instrumentation import trace_statements
from shared.database.opening import count_changed

INSERT = "INSERT INTO notes (owner, note) VALUES ($1, $2) ON CONFLICT DO NOTHING"


@pytest.fixture
async def notes(database_settings: DatabaseSettings) -> AsyncIterator[Database]:
    settings = database_settings.model_copy(
        update={"lock_timeout_seconds": 0.1, "slow_query_seconds": 0.0, "pool_size": 2}
    )
    async with Database(settings, schema="notes", application_name="test-service") as database:
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE SCHEMA notes"))
            await connection.execute(
                text("CREATE TABLE notes (owner text, note text, PRIMARY KEY (owner, note))")
            )
        yield database
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def insert(connection: AsyncConnection, *values: str) -> int:
    return await connection.run_sync(count_changed, INSERT, *values)


@asynccontextmanager
async def without_values(connection: AsyncConnection) -> AsyncIterator[list[str]]:
    """The messages to the server, within the block, that have no values beside their text."""
    messages: list[str] = []

    def log(query: object) -> None:
        messages.append(query.query)  # type: ignore[attr-defined]

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
    async with notes.engine.connect() as connection, without_values(connection) as messages:
        assert await insert(connection, "ada", "1") == 1
        assert await insert(connection, "ada", "1") == 0
        assert await insert(connection, "ada", "2") == 1
        await connection.commit()
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
        async with notes.engine.connect() as connection, without_values(connection) as messages:
            assert await insert(connection, "ada", note) == expected
            await connection.commit()
        assert messages == ["BEGIN;", "COMMIT;"]
    assert await all_notes(notes) == [("ada", note)]


async def test_the_transaction_is_the_one_that_was_asked_for(notes: Database) -> None:
    async with notes.session(isolation="serializable") as session:
        connection = await session.connection()
        assert await insert(connection, "ada", "1") == 1
        level = await session.scalar(text("SHOW transaction_isolation"))
        await session.rollback()
    assert level == "serializable"
    async with notes.session(read_only=True) as session:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            await insert(await session.connection(), "ada", "1")
    assert await all_notes(notes) == []


async def test_a_statement_that_commits_by_itself_has_no_begin(notes: Database) -> None:
    async with notes.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        async with without_values(connection) as messages:
            assert await insert(connection, "ada", "1") == 1
    assert messages == []
    assert await all_notes(notes) == [("ada", "1")]


async def test_the_tenant_is_told_first(notes: Database) -> None:
    merchant = "0192f0c1-2a00-7000-8000-000000000001"
    with tenant_scope(merchant):
        async with notes.transaction() as session:
            assert await insert(await session.connection(), "ada", "1") == 1
            assert await session.scalar(text("SELECT current_setting('glam.merchant_id')")) == (
                merchant
            )


async def test_what_fails_in_it_fails_there_and_leaves_a_transaction_to_roll_back(
    notes: Database,
) -> None:
    async with notes.engine.connect() as first, notes.engine.connect() as second:
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
        async with database.engine.begin() as connection:
            await insert(connection, "ada", "1")

    async with Database(patient, schema="notes", application_name="patient") as database:
        async with notes.engine.connect() as first:
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
    async with notes.engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        async with notes.engine.connect() as other:
            await other.execute(
                text("SELECT pg_terminate_backend(:pid)"), {"pid": driver.get_server_pid()}
            )
        with pytest.raises(DBAPIError) as caught:
            await insert(connection, "ada", "1")
        assert caught.value.connection_invalidated
    assert await all_notes(notes) == []


async def test_those_who_listen_hear_the_statement_without_its_values(
    notes: Database, caplog: pytest.LogCaptureFixture
) -> None:
    trace_statements(notes, logged=True)
    with caplog.at_level(logging.INFO), bind(Context.start(service="test-service")):
        async with notes.transaction() as session:
            assert await insert(await session.connection(), "ada", "1") == 1
    slow = [r for r in caplog.records if r.getMessage() == "slow statement"]
    assert [getattr(record, "statement", None) for record in slow] == [INSERT]
    assert [m for m in caplog.messages if m.startswith("span")] == ["span INSERT notes"]
    assert "ada" not in caplog.text
