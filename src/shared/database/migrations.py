"""Migrations: a service keeps its revisions, everything around them is here."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from shared.database.first_design import MigrationManager, create_alembic_env_template
from shared.database.translation import translate_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy import Connection, MetaData
    from sqlalchemy.ext.asyncio import AsyncConnection

    from shared.database.database import Database

__all__ = [
    "MigrationManager",
    "Migrations",
    "Revision",
    "create_alembic_env_template",
    "migrate",
]

_logger = logging.getLogger(__name__)
_ENVIRONMENT = Path(__file__).parent / "_alembic"
_LOCK_RETRY_SECONDS = 0.1

# Alembic keeps the running environment in module globals (`alembic.context`, `alembic.op`).
_alembic_is_busy = threading.Lock()

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a service."""

    id: str
    message: str
    down: tuple[str, ...]


async def migrate(database: Database, *, migrations: Path | str) -> str:
    """Bring the schema up to the newest revision; create it first if need be.

    Any number of replicas may call this at the same time: one works, the others wait and then
    find nothing to do.

    Args:
        database: whose ``schema`` is migrated; ``alembic_version`` lives there as well.
        migrations: folder of the revision files, or the package that is this folder.

    Returns:
        The revision the schema is at; empty when there are no revisions.

    Raises:
        FileNotFoundError: no such folder or package.
        DatabaseError: the database is away, or a statement failed.
        alembic.util.CommandError: the revisions do not make one line.
    """
    return await Migrations(database, migrations).upgrade()


class Migrations:
    """The revisions of one service and the schema they are applied to.

    Args:
        database: whose ``schema`` is meant.
        migrations: folder of the revision files, or the package that is this folder.

    Raises:
        FileNotFoundError: no such folder or package.
    """

    def __init__(self, database: Database, migrations: Path | str) -> None:
        self.database = database
        self.folder = _folder(migrations)

    async def upgrade(self, revision: str = "head") -> str:
        """Go forward to ``revision``; return the one the schema is at then."""

        def work(connection: Connection) -> str:
            before = _current(connection, self.database.schema)
            command.upgrade(self._config(connection), revision)
            after = _current(connection, self.database.schema)
            if after != before:
                _logger.info(
                    "migrated",
                    extra={"schema": self.database.schema, "before": before, "after": after},
                )
            return after

        return await self._locked(work)

    async def downgrade(self, revision: str) -> str:
        """Go back to ``revision`` (``base``: before the first); return where the schema is then."""

        def work(connection: Connection) -> str:
            command.downgrade(self._config(connection), revision)
            return _current(connection, self.database.schema)

        return await self._locked(work)

    async def create(self, message: str, metadata: MetaData | None = None) -> Path:
        """Write a new revision file; with ``metadata``, filled with what the schema lacks."""

        def work(connection: Connection) -> Path:
            config = self._config(connection, metadata)
            script = command.revision(
                config,
                message,
                autogenerate=metadata is not None,
                version_path=str(self.folder),
            )
            if script is None or isinstance(script, list):
                raise RuntimeError("Alembic wrote no revision")
            return Path(script.path)

        return await self._locked(work)

    async def current(self) -> str:
        """Return the revision the schema is at; empty before the first migration."""

        def work(connection: Connection) -> str:
            return _current(connection, self.database.schema)

        return await self._connected(work)

    async def drift(self, metadata: MetaData) -> list[str]:
        """Return what the models say and the schema does not, a line each.

        Tables that no model names (the outbox, the inbox, partitions) are not differences.
        """

        def work(connection: Connection) -> list[str]:
            context = MigrationContext.configure(
                connection,
                opts={
                    "include_object": _of(metadata),
                    "version_table_schema": self.database.schema,
                },
            )
            return [str(difference) for difference in compare_metadata(context, metadata)]

        return await self._connected(work)

    def heads(self) -> list[str]:
        """Return the newest revisions: one, unless two branches of work were merged carelessly."""
        return list(ScriptDirectory.from_config(self._config()).get_heads())

    def history(self) -> list[Revision]:
        """Return all revisions, newest first."""
        return [
            Revision(script.revision, script.doc, _tuple(script.down_revision))
            for script in ScriptDirectory.from_config(self._config()).walk_revisions()
        ]

    def _config(
        self, connection: Connection | None = None, metadata: MetaData | None = None
    ) -> Config:
        config = Config()
        config.set_main_option("script_location", _escaped(_ENVIRONMENT))
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", _escaped(self.folder))
        config.attributes.update(
            connection=connection,
            schema=self.database.schema,
            target_metadata=metadata,
            include_object=_of(metadata) if metadata is not None else None,
        )
        return config

    async def _locked(self, work: Callable[[Connection], R]) -> R:
        async with self._connection() as connection, _migration_lock(connection, self.database):
            await connection.execute(CreateSchema(self.database.schema, if_not_exists=True))
            await connection.commit()
            return await connection.run_sync(work)

    async def _connected(self, work: Callable[[Connection], R]) -> R:
        async with self._connection() as connection:
            return await connection.run_sync(work)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection]:
        while not _alembic_is_busy.acquire(blocking=False):  # noqa: ASYNC110 - across loops
            await asyncio.sleep(_LOCK_RETRY_SECONDS)
        engine = self.database.create_engine(poolclass=NullPool)
        try:
            with translate_errors("migrate"):
                async with engine.connect() as connection:
                    # Building an index may take an hour; waiting for a table's lock may not.
                    await connection.execute(text("SET statement_timeout = 0"))
                    await connection.commit()
                    yield connection
        finally:
            _alembic_is_busy.release()
            await engine.dispose()


@asynccontextmanager
async def _migration_lock(connection: AsyncConnection, database: Database) -> AsyncIterator[None]:
    """Hold PostgreSQL's advisory lock for this schema.

    The lock belongs to the session, for a revision may end the transaction itself. It is asked for
    again and again instead of waited for: a waiting statement holds a snapshot, and
    CREATE INDEX CONCURRENTLY of the one that migrates waits for all snapshots, so that both would
    wait for ever.
    """
    name = {"name": f"glam.migrate.{database.schema}"}
    ask = text("SELECT pg_try_advisory_lock(hashtextextended(:name, 0))")
    waiting = False
    while True:
        mine = await connection.scalar(ask, name)
        await connection.commit()
        if mine:
            break
        if not waiting:
            _logger.info("another replica migrates", extra={"schema": database.schema})
            waiting = True
        await asyncio.sleep(_LOCK_RETRY_SECONDS)
    # Closing the connection, which nobody shares, gives the lock back.
    yield


def _current(connection: Connection, schema: str) -> str:
    context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    heads = ", ".join(context.get_current_heads())
    connection.commit()
    return heads


def _of(metadata: MetaData) -> Callable[..., bool]:
    """Tell Alembic to leave tables alone that no model names."""

    def include(item: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
        del item, other
        return not (kind == "table" and reflected and name not in metadata.tables)

    return include


def _folder(migrations: Path | str) -> Path:
    if isinstance(migrations, Path) or "/" in migrations:
        folder = Path(migrations)
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder of migrations at {folder}")
        return folder.absolute()
    try:
        spec = find_spec(migrations)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"no package of migrations named {migrations}")
    return Path(next(iter(spec.submodule_search_locations)))


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")  # Alembic's configuration interpolates


def _tuple(revisions: object) -> tuple[str, ...]:
    if revisions is None:
        return ()
    return (revisions,) if isinstance(revisions, str) else tuple(map(str, revisions))  # type: ignore[call-overload]
