"""The first design's handle on Alembic, for services that keep an ``env.py`` of their own.

New services have none: `shared.database.migrate` brings it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine


_TEMPLATE = '''\
"""Alembic environment of {service_name}."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from shared.database import Base
import {base_module}  # noqa: F401 - the models add themselves to Base.metadata

# "Only one migrates this service": ASCII of "glammigr" with the service's name behind it.
LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('glam.migrate.{service_name}', 0))")


def run(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=Base.metadata, compare_type=True
    )
    with context.begin_transaction():
        connection.execute(LOCK)
        context.run_migrations()


async def run_async() -> None:
    engine = create_async_engine(
        context.config.get_main_option("sqlalchemy.url"), poolclass=NullPool
    )
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


if context.is_offline_mode():
    context.configure(
        url=context.config.get_main_option("sqlalchemy.url"),
        target_metadata=Base.metadata,
        literal_binds=True,
    )
    with context.begin_transaction():
        context.run_migrations()
else:
    # In a thread of its own, since the caller may run inside an event loop.
    with ThreadPoolExecutor(max_workers=1) as thread:
        thread.submit(asyncio.run, run_async()).result()
'''

_REVISION = (files("shared.database.migrations") / "_alembic" / "script.py.mako").read_text


def create_alembic_env_template(service_name: str, base_module: str) -> str:
    """Return the text of an ``env.py`` that migrates over an async engine, one replica at a time.

    Args:
        service_name: names the lock.
        base_module: module that imports all models of the service.
    """
    return _TEMPLATE.format(service_name=service_name, base_module=base_module)


class MigrationManager:
    """Runs Alembic's commands for one service. Its methods block: they are for command lines.

    Args:
        service_name: e.g. ``credit-service``.
        alembic_ini_path: its ``alembic.ini``; need not exist.
        migrations_path: folder with ``env.py`` and ``versions``.
        database_url: with an async driver.
    """

    def __init__(
        self, service_name: str, alembic_ini_path: str, migrations_path: str, database_url: str
    ) -> None:
        self.service_name = service_name
        self.alembic_ini_path = alembic_ini_path
        self.migrations_path = migrations_path
        self.database_url = database_url

    def get_alembic_config(self) -> Config:
        """Return Alembic's configuration for this service."""
        ini = Path(self.alembic_ini_path)
        config = Config(ini) if ini.is_file() else Config()
        config.set_main_option("script_location", self.migrations_path.replace("%", "%%"))
        config.set_main_option("sqlalchemy.url", self.database_url.replace("%", "%%"))
        return config

    def init_alembic(self) -> None:
        """Lay out the migrations folder; files that exist are kept."""
        folder = Path(self.migrations_path)
        (folder / "versions").mkdir(parents=True, exist_ok=True)
        module = self.service_name.replace("-", "_")
        for name, content in (
            ("env.py", create_alembic_env_template(self.service_name, f"{module}.models")),
            ("script.py.mako", _REVISION()),
        ):
            if not (folder / name).exists():
                (folder / name).write_text(content)

    def create_migration(self, message: str) -> None:
        """Write a revision with what the models have and the database lacks."""
        command.revision(self.get_alembic_config(), message, autogenerate=True)

    def upgrade(self, revision: str = "head") -> None:
        """Go forward to ``revision``."""
        command.upgrade(self.get_alembic_config(), revision)

    def downgrade(self, revision: str) -> None:
        """Go back to ``revision``."""
        command.downgrade(self.get_alembic_config(), revision)

    def get_current_revision(self) -> str:
        """Return the revision the database is at; empty before the first."""
        # In a thread of its own, since the caller may run inside an event loop.
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(asyncio.run, self._current()).result()

    async def ensure_schema_exists(self, engine: AsyncEngine, schema_name: str) -> None:
        """Create the schema unless it is there."""
        async with engine.begin() as connection:
            await connection.execute(CreateSchema(schema_name, if_not_exists=True))

    async def _current(self) -> str:
        def heads(connection: Connection) -> tuple[str, ...]:
            return MigrationContext.configure(connection).get_current_heads()

        engine = create_async_engine(self.database_url, poolclass=NullPool)
        try:
            async with engine.connect() as connection:
                return ", ".join(await connection.run_sync(heads))
        finally:
            await engine.dispose()
