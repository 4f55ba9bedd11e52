"""Pytest fixtures with real servers; pytest finds them by itself once glam-shared is installed.

| fixture | scope | gives |
| --- | --- | --- |
| `nats_server`, `postgres_server` | session | a server for all tests |
| `nats_settings` | function | settings for that server; its streams are deleted afterwards |
| `database_settings` | function | settings for an empty database, dropped afterwards |
| `database_url` | function | the same database as a SQLAlchemy address |
| `smtp_sink` | function | an empty mailbox |
| `own_nats_server`, `own_postgres_server` | function | a server to kill, pause and restart |

The servers need `glam-shared[testing]`; pytest-asyncio runs asynchronous tests. The fixtures are
synchronous and start nothing before a test asks for one, so they serve tests of both kinds.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator

    from shared.config import DatabaseSettings, NatsSettings
    from shared.dev import NatsServer, PostgresServer, Server, SmtpSink

# The suites are tests: pytest shows what stood on both sides of an assertion that failed.
pytest.register_assert_rewrite("shared.testing.suites")

T = TypeVar("T")
ServerT = TypeVar("ServerT", bound="Server | SmtpSink")


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """One NATS server with JetStream for the whole session."""
    from shared.dev import NatsServer  # noqa: PLC0415 - pytest loads this file in every project

    yield from _served(NatsServer())


@pytest.fixture
def own_nats_server() -> Iterator[NatsServer]:
    """A NATS server of the test's own."""
    from shared.dev import NatsServer  # noqa: PLC0415

    yield from _served(NatsServer())


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the whole session."""
    from shared.dev import PostgresServer  # noqa: PLC0415

    yield from _served(PostgresServer())


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own."""
    from shared.dev import PostgresServer  # noqa: PLC0415

    yield from _served(PostgresServer())


@pytest.fixture
def smtp_sink() -> Iterator[SmtpSink]:
    """A mail server with an empty mailbox."""
    from shared.dev import SmtpSink  # noqa: PLC0415

    yield from _served(SmtpSink())


@pytest.fixture
def nats_settings(nats_server: NatsServer) -> Iterator[NatsSettings]:
    """Settings for the session's NATS server, which has no streams when the test begins."""
    from shared.config import NatsSettings  # noqa: PLC0415

    yield NatsSettings(servers=(nats_server.url,))
    _run(_delete_streams(nats_server.url))


@pytest.fixture
def database_settings(postgres_server: PostgresServer) -> Iterator[DatabaseSettings]:
    """Settings for an empty database of the test's own."""
    name = f"test_{secrets.token_hex(6)}"
    yield _run(postgres_server.create_database(name))
    _run(postgres_server.drop_database(name))


@pytest.fixture
def database_url(database_settings: DatabaseSettings) -> str:
    """The address of the test's own database for SQLAlchemy with asyncpg."""
    where = database_settings
    return f"postgresql+asyncpg://{where.user}@{where.host}:{where.port}/{where.name}"


def _served(server: ServerT) -> Iterator[ServerT]:
    _run(server.start())
    try:
        yield server
    finally:
        _run(server.stop())


def _run(work: Coroutine[object, object, T]) -> T:
    """Run to the end in a loop of its own, leaving the thread's current loop as it is."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


async def _delete_streams(url: str) -> None:
    import nats  # noqa: PLC0415

    client = await nats.connect(url, allow_reconnect=False)
    try:
        jetstream = client.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(stream.config.name or "")
    finally:
        await client.close()
