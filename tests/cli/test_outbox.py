"""`glam outbox`, as typed."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from shared.cli.app import app
from shared.config import DatabaseSettings, DeliverySettings, NatsSettings
from shared.database import Database, migrate
from shared.delivery import Relay, UnitOfWork
from shared.delivery.outbox.status import read_backlog
from shared.messaging import Bus
from shared.platform.streams import STREAMS
from tests.delivery.world import COUNTED, STREAM, Counted

SERVICE = """
from shared.config import ServiceSettings
from shared.service import Service


class HelloSettings(ServiceSettings):
    greeting: str = "hello"


service = Service("hello-service", settings=HelloSettings)
"""


def glam(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def filled(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    database_settings: DatabaseSettings,
    nats_settings: NatsSettings,
) -> str:
    """A service with three published events, one that waits, and a stream that was lost."""
    (tmp_path / "hello.py").write_text(SERVICE)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "shared.yml").write_text("debug: false\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("HELLO_NATS__SERVERS", nats_settings.servers[0])
    for name in ("host", "port", "name", "user"):
        monkeypatch.setenv(f"HELLO_DATABASE__{name.upper()}", str(getattr(database_settings, name)))
    asyncio.run(fill(database_settings, nats_settings))
    return "hello.py"


async def fill(database_settings: DatabaseSettings, nats_settings: NatsSettings) -> None:
    async with (
        Database(database_settings, schema="hello") as database,
        Bus(nats_settings, name="test") as bus,
    ):
        await migrate(database, migrations="shared.delivery.migrations")
        await bus.ensure_stream(STREAMS["CREDIT"])

        async def add(*numbers: int) -> None:
            async with UnitOfWork(database, service="hello-service") as uow:
                for n in numbers:
                    uow.outbox.add(COUNTED, Counted(n=n))

        await add(1, 2, 3)
        assert await relay(database, bus).drain()
        await add(4)
        await bus.js.delete_stream(STREAM)
        await bus.ensure_stream(STREAMS["CREDIT"])


def test_status_tells_what_waits_and_who_holds_the_partitions(filled: str) -> None:
    result = glam("outbox", "status", filled)
    assert result.exit_code == 0, result.output
    assert "hello: 1 to publish" in result.output
    assert "0 failed before" in result.output
    assert "kept since" in result.output
    assert result.output.count("nobody") == 16
    assert "last error" not in result.output


def test_status_tells_of_a_message_that_cannot_be_published_which_and_why(
    filled: str, database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    event_id = asyncio.run(add_too_large(database_settings, nats_settings))
    result = glam("outbox", "status", filled)
    assert result.exit_code == 0, result.output
    assert "1 to publish" in result.output
    assert "1 failed before" in result.output
    (row,) = (line for line in result.output.splitlines() if event_id in line)
    assert "evt.credit.counted" in row
    assert "acme [de]" in row
    assert "is too large" in row
    with_objects = nats_settings.model_copy(update={"claim_check_bytes": 100_000})
    asyncio.run(relay_all(database_settings, with_objects))
    assert "0 to publish" in glam("outbox", "status", filled).output


async def add_too_large(database_settings: DatabaseSettings, nats_settings: NatsSettings) -> str:
    async with (
        Database(database_settings, schema="hello") as database,
        Bus(nats_settings, name="test") as bus,
    ):
        async with UnitOfWork(database, service="hello-service") as uow:
            large = {"pad": "x" * 3 * 1024 * 1024}
            added = uow.outbox.add(COUNTED, Counted(n=5), key="acme [de]", metadata=large)
        assert not await relay(database, bus).drain()
        return added.event_id


async def relay_all(database_settings: DatabaseSettings, nats_settings: NatsSettings) -> None:
    async with (
        asyncio.timeout(120),
        Database(database_settings, schema="hello") as database,
        Bus(nats_settings, name="test") as bus,
    ):
        while (await read_backlog(database)).count:
            await relay(database, bus).drain()
            await asyncio.sleep(0.1)


def relay(database: Database, bus: Bus) -> Relay:
    settings = DeliverySettings()
    return Relay(database, bus.publisher, service="hello-service", settings=settings, bus=bus)


def test_rebuild_says_what_it_would_do_does_it_and_may_be_repeated(filled: str) -> None:
    would = glam("outbox", "rebuild", filled, "--stream", STREAM, "--dry-run")
    assert "hello: 3 kept, 0 still there, 3 would be published" in would.output
    done = glam("outbox", "rebuild", filled, "--stream", STREAM, "--rate", "1000")
    assert "hello: 3 kept, 0 still there, 3 published" in done.output
    again = glam("outbox", "rebuild", filled)
    assert "hello: 3 kept, 3 still there, 0 published" in again.output
    assert "0 kept" in glam("outbox", "rebuild", filled, "--since", "2999-01-01").output
    assert glam("outbox", "rebuild", filled, "--rate", "0").exit_code == 2
