"""A database with a schema of its own and the tables of the models here."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from shared.config import DatabaseSettings
from shared.database import Database
from tests.database.models import TestBase


@pytest.fixture
async def database(database_settings: DatabaseSettings) -> AsyncIterator[Database]:
    settings = database_settings.model_copy(
        update={"cursor_secret": SecretStr("a secret that signs cursors")}
    )
    async with Database(settings, schema="shop-1", application_name="test-service") as database:
        async with database.engine.begin() as connection:
            await connection.execute(text('CREATE SCHEMA "shop-1"'))
            await connection.run_sync(TestBase.metadata.create_all)
        yield database
        # A loop over sessions that is left by `return` is closed by asyncio a few turns later.
        for _ in range(500):
            if database.engine.pool.checkedout():  # type: ignore[attr-defined]
                await asyncio.sleep(0.01)
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
