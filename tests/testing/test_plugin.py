import asyncio
import subprocess
import sys
from pathlib import Path

import asyncpg
import nats
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.config import DatabaseSettings, NatsSettings
from shared.dev import NatsServer, PostgresServer, SmtpSink

ANOTHER_PROJECT = """
import smtplib
import pytest

@pytest.mark.parametrize("run", [1, 2])
def test_synchronous(nats_settings, database_url, smtp_sink, run):
    assert nats_settings.servers[0].startswith("nats://127.0.0.1:")
    with smtplib.SMTP(smtp_sink.host, smtp_sink.port) as client:
        client.sendmail("a@example.com", "b@example.com", "Subject: hello")
    assert smtp_sink.messages[0].subject == "hello"

@pytest.mark.asyncio
async def test_asynchronous(database_settings, own_nats_server):
    await own_nats_server.restart()
"""


@pytest.mark.parametrize("run", ["first", "second"])
async def test_a_test_finds_no_stream_of_another(nats_settings: NatsSettings, run: str) -> None:
    client = await nats.connect(list(nats_settings.servers), allow_reconnect=False)
    jetstream = client.jetstream()
    assert await jetstream.streams_info() == []
    await jetstream.add_stream(name="LEFTOVER", subjects=[f"leftover.{run}"])
    await client.close()


@pytest.mark.parametrize("run", ["first", "second"])
async def test_a_test_finds_no_table_of_another(
    database_settings: DatabaseSettings, run: str
) -> None:
    connection = await asyncpg.connect(
        host=database_settings.host,
        port=database_settings.port,
        user=database_settings.user,
        database=database_settings.name,
    )
    await connection.execute("CREATE TABLE leftover ()")
    # Left open: the database is dropped all the same.
    connection.terminate()


async def test_no_database_is_left_over(postgres_server: PostgresServer) -> None:
    connection = await asyncpg.connect(postgres_server.url)
    names = await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'test_%'")
    await connection.close()
    assert names == []


async def test_the_address_leads_to_the_same_database(
    database_url: str, database_settings: DatabaseSettings
) -> None:
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        name = await connection.scalar(text("SELECT current_database()"))
    await engine.dispose()
    assert name == database_settings.name


def test_an_own_server_is_not_the_servers_of_all(
    own_nats_server: NatsServer,
    nats_server: NatsServer,
    own_postgres_server: PostgresServer,
    postgres_server: PostgresServer,
) -> None:
    assert own_nats_server.port != nats_server.port
    assert own_postgres_server.port != postgres_server.port


def test_a_mailbox_is_empty(smtp_sink: SmtpSink) -> None:
    assert smtp_sink.messages == ()


def test_the_fixtures_leave_the_current_loop_alone() -> None:
    from shared.testing.plugin import _run

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        assert _run(asyncio.sleep(0, "done")) == "done"
        assert asyncio.get_event_loop() is loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@pytest.mark.servers
def test_another_project_uses_them_with_warnings_as_errors(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(ANOTHER_PROJECT)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nasyncio_default_fixture_loop_scope = function\nfilterwarnings = error\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "test_theirs.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_plugin_costs_other_projects_nothing() -> None:
    heavy = ("shared.dev", "pydantic", "asyncpg", "nats", "sqlalchemy", "fastapi", "psutil")
    code = f"import sys, shared.testing.plugin; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
