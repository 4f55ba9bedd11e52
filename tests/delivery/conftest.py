"""A service with its outbox and inbox, and a stream it publishes into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared.database import Database, migrate
from shared.messaging import Bus
from shared.platform.streams import STREAMS
from tests.delivery.world import SERVICE, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.config import DatabaseSettings, NatsSettings


@pytest.fixture
async def database(database_settings: DatabaseSettings) -> AsyncIterator[Database]:
    async with Database(database_settings, schema="credit") as database:
        await migrate(database, migrations="shared.delivery.migrations")
        yield database
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


@pytest.fixture
async def bus(nats_settings: NatsSettings) -> AsyncIterator[Bus]:
    async with Bus(nats_settings, name=SERVICE) as bus:
        await bus.ensure_stream(STREAMS["CREDIT"])
        yield bus


@pytest.fixture
def world(database: Database, bus: Bus) -> World:
    return World(database, bus)
