import asyncio
import logging

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from sqlalchemy import text

from shared.config import DatabaseSettings
from shared.database import Database
from shared.errors import DatabaseError


async def test_a_connection_carries_schema_name_and_timeouts(
    database_settings: DatabaseSettings,
) -> None:
    settings = database_settings.model_copy(
        update={"statement_timeout_seconds": 7.5, "lock_timeout_seconds": 3}
    )
    async with (
        Database(settings, schema='Sh"op', application_name="credit-service") as database,
        database.transaction() as session,
    ):
        shown = {
            name: await session.scalar(text(f"SHOW {name}"))
            for name in (
                "application_name",
                "search_path",
                "statement_timeout",
                "lock_timeout",
                "idle_in_transaction_session_timeout",
            )
        }
    assert shown == {
        "application_name": "credit-service",
        "search_path": '"Sh""op"',
        "statement_timeout": "7500ms",
        "lock_timeout": "3s",
        "idle_in_transaction_session_timeout": "1min",
    }


async def test_a_statement_that_takes_too_long_is_ended_by_the_server(
    database_settings: DatabaseSettings,
) -> None:
    settings = database_settings.model_copy(update={"statement_timeout_seconds": 0.05})
    async with Database(settings) as database:
        with pytest.raises(DatabaseError) as caught:
            async with database.transaction() as session:
                await session.execute(text("SELECT pg_sleep(60)"))
        assert caught.value.retryable
        assert caught.value.details["error_code"] == "57014"
        await database.ping()


async def test_nobody_there_is_a_retryable_database_error(
    database_settings: DatabaseSettings,
) -> None:
    settings = database_settings.model_copy(update={"host": "127.0.0.1", "port": 1})
    async with Database(settings) as database:
        with pytest.raises(DatabaseError) as caught:
            await database.ping()
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_database_that_does_not_exist_is_not_retryable(
    database_settings: DatabaseSettings,
) -> None:
    async with Database(database_settings.model_copy(update={"name": "nowhere"})) as database:
        with pytest.raises(DatabaseError) as caught:
            await database.ping()
    assert not caught.value.retryable


async def test_the_password_is_nowhere_to_be_seen(
    database_settings: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = database_settings.model_copy(
        update={"password": SecretStr("p@ss/w:rd"), "name": "nowhere", "echo": True}
    )
    caplog.set_level(logging.DEBUG)
    async with Database(settings) as database:
        with pytest.raises(DatabaseError) as caught:
            await database.ping()
        seen = f"{database!r} {database.url!r} {database.engine!r} {caught.value} {caplog.text}"
    assert "p@ss" not in seen


async def test_a_transaction_commits_or_rolls_back(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("CREATE TABLE notes (word text)"))
        await session.execute(text("INSERT INTO notes VALUES ('kept')"))
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES ('lost')"))
            raise ZeroDivisionError
    async with database.transaction() as session:
        assert (await session.scalars(text("SELECT word FROM notes"))).all() == ["kept"]


async def test_cancellation_gives_the_connection_back_and_undoes(database: Database) -> None:
    async with database.transaction() as session:
        await session.execute(text("CREATE TABLE notes (word text)"))
    inside = asyncio.Event()

    async def work() -> None:
        async with database.transaction() as session:
            await session.execute(text("INSERT INTO notes VALUES ('lost')"))
            inside.set()
            await session.execute(text("SELECT pg_sleep(60)"))

    for _ in range(20):
        inside.clear()
        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    async with database.transaction() as session:
        assert await session.scalar(text("SELECT count(*) FROM notes")) == 0


async def test_close_twice_is_harmless(database_settings: DatabaseSettings) -> None:
    database = Database(database_settings)
    await database.ping()
    await database.close()
    await database.close()


async def test_a_slow_statement_is_logged_without_its_parameters(
    database_settings: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    async with Database(database_settings, slow_query_seconds=0) as database:  # noqa: SIM117
        async with database.transaction() as session:
            await session.execute(text("SELECT :secret"), {"secret": "hunter2"})
    (record,) = [r for r in caplog.records if r.message == "slow statement"]
    assert record.__dict__["statement"].startswith("SELECT $1")
    assert "hunter2" not in str(record.__dict__)


async def test_the_pool_is_measured(database_settings: DatabaseSettings) -> None:
    def connections(state: str) -> float | None:
        return REGISTRY.get_sample_value(
            "database_pool_connections", {"service": "measured", "state": state}
        )

    async with Database(database_settings, application_name="measured") as database:
        async with database.engine.connect() as one, database.engine.connect():
            assert (connections("in_use"), connections("idle")) == (2, 0)
            await one.invalidate()
        assert (connections("in_use"), connections("idle")) == (0, 1)
    assert (connections("in_use"), connections("idle")) == (0, 0)
    assert REGISTRY.get_sample_value("database_pool_limit", {"service": "measured"}) == 15
