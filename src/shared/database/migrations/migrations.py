"""Migrations: the revisions of a service, and the schema they are applied to."""

from __future__ import annotations

import ast
import asyncio
import io
import logging
import re
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import text
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateSchema

from shared.database.engine.statements import quoted_name, quoted_text
from shared.database.engine.translation import translate_errors
from shared.database.migrations.drift import differences, only_tables
from shared.database.migrations.errors import MigrationError
from shared.database.migrations.lint import lint
from shared.database.migrations.model_operations import (
    FirstRevision,
    render_type,
    write_operations,
)
from shared.database.migrations.recording import record
from shared.database.migrations.revision_files import (
    read_revision,
    revision_files,
    revisions_folder,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator

    from sqlalchemy import Connection, MetaData
    from sqlalchemy.ext.asyncio import AsyncConnection

    from shared.database.engine.database import Database
    from shared.database.migrations.lint import Finding


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


class Migrations:
    """The revisions of one service and the schema they are applied to.

    Args:
        database: whose ``schema`` is meant.
        migrations: folder of the revision files, or the package that is this folder. A folder
            ``versions`` in it holds them, if there is one.

    Raises:
        FileNotFoundError: no such folder or package.
    """

    def __init__(self, database: Database, migrations: Path | str) -> None:
        self.database = database
        self.folder = revisions_folder(migrations)

    async def upgrade(self, revision: str = "head") -> str:
        """Go forward to ``revision``; return the one the schema is at then.

        A schema that newer code has migrated stays as it is, with a warning in the log: while
        releases change over, and after one was taken back, old code starts beside the new schema.
        Revisions that break the old code are what the linter is there to find.

        Raises:
            MigrationError: no such revision, more than one newest, a file that does not compile, or
                a schema older than the baseline that replaced its revisions.
            DatabaseError: the database is away, or a statement failed.
        """

        def work(connection: Connection) -> str:
            before = _current(connection, self.database.schema)
            if self._is_ahead(before):
                return before
            if revision in {"head", "heads"}:
                self.newest()
            with self._told(revision):
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
        """Go back to ``revision`` (``base``: before the first); return where the schema is then.

        Raises:
            MigrationError: no such revision, or the schema is ahead of this code.
        """

        def work(connection: Connection) -> str:
            before = _current(connection, self.database.schema)
            if self._is_ahead(before):
                raise MigrationError(
                    f"schema {self.database.schema} is at {before}, which is not among the "
                    f"revisions in {self.folder}: go back with the code that made it"
                )
            with self._told(revision):
                command.downgrade(self._config(connection), revision)
            return _current(connection, self.database.schema)

        return await self._locked(work)

    async def create(
        self,
        message: str,
        metadata: MetaData | None = None,
        *,
        tables: Collection[str] | None = None,
        first: FirstRevision | None = None,
    ) -> Path:
        """Write a new, numbered revision file; with ``metadata``, with what the schema lacks.

        Args:
            message: what it does; also in the file's name.
            metadata: of the models; without, the file is empty and no database is asked. New tables
                get the trigger and the policy that their mixins need.
            tables: those of ``metadata`` that are meant; None for all.
            first: what the very first revision calls besides.

        Raises:
            MigrationError: more than one newest revision, or the schema is not at the newest: what
                it lacks is then in revisions already.
        """

        def work(connection: Connection | None) -> Path:
            newest = self.newest()
            current = _current(connection, self.database.schema) if connection else newest
            if current != newest:
                raise MigrationError(
                    f"schema {self.database.schema} is at {current or 'no revision'}, the newest "
                    f"is {newest}: bring it there before a revision is written from the models"
                )
            config = self._config(connection, metadata, tables)
            number, name = self._next()
            config.set_main_option("file_template", name)
            script = command.revision(
                config,
                message,
                autogenerate=metadata is not None,
                version_path=str(self.folder),
                rev_id=number,
                process_revision_directives=(
                    write_operations(metadata, first or FirstRevision())
                    if metadata is not None
                    else None
                ),
            )
            if script is None or isinstance(script, list):
                raise RuntimeError("Alembic wrote no revision")
            return Path(script.path)

        if metadata is None:
            async with _alone():
                return work(None)
        return await self._locked(work)

    async def current(self) -> str:
        """Return the revision the schema is at; empty before the first migration."""
        return await self._connected(lambda it: _current(it, self.database.schema))

    async def drift(
        self, metadata: MetaData, *, tables: Collection[str] | None = None
    ) -> list[str]:
        """Return what the models say and the schema does not, a line each.

        Tables that no model names (the outbox, the inbox, partitions) are not differences. A table
        whose model is a `TimestampedMixin` or `MerchantMixin` has the trigger or the policy too
        (``{"isolated": False}`` in the table's ``info`` says that a policy is not wanted).

        Args:
            metadata: of the models.
            tables: those of ``metadata`` that are meant; None for all.
        """
        chosen = frozenset(metadata.tables) if tables is None else frozenset(tables)

        schema = self.database.schema
        return await self._connected(lambda it: differences(it, schema, metadata, chosen))

    async def pending(self) -> list[str]:
        """Return the revisions that the schema has not seen, oldest first.

        Raises:
            MigrationError: the schema is at a revision that is not among them.
        """
        current = await self.current()
        if self._is_ahead(current):
            raise MigrationError(
                f"schema {self.database.schema} is at {current}, which is not among the revisions "
                f"in {self.folder}: newer code migrated it, or the file is missing"
            )
        scripts = self._scripts()
        applied = {
            script.revision
            for head in filter(None, current.split(", "))
            for script in scripts.iterate_revisions(head, "base")
        }
        return [revision.id for revision in reversed(self.history()) if revision.id not in applied]

    async def lint(self, only: Collection[str] | None = None) -> list[Finding]:
        """Return the dangerous steps of the revisions; see `shared.database.migrations.lint`.

        Args:
            only: the revisions that are meant; None for all.
        """
        async with _alone():
            scripts = list(self._scripts().walk_revisions())
            return lint(
                reversed(scripts),
                only=only,
                lock_timeout=self.database.settings.lock_timeout_seconds > 0,
            )

    async def seeds(self) -> list[tuple[str, str]]:
        """Return the statements of the revisions that insert rows, each with its table."""
        found = []
        async with _alone():
            for script in reversed(list(self._scripts().walk_revisions())):
                for step in record(script).upgrade:
                    for before, word, table in zip(
                        *(step.statement.tokens[offset:] for offset in range(3)), strict=False
                    ):
                        if (before, word) == ("insert", "into"):
                            found.append((table, step.statement.text))
        return found

    async def losses(self, revision: str) -> list[str]:
        """Return the statements on the way back to ``revision`` that lose data.

        Raises:
            MigrationError: no such revision.
        """
        current = await self.current()
        with self._told(revision):
            scripts = self._scripts()
            target = _relative(scripts, current, None if revision == "base" else revision)
            steps = [
                script
                for script in scripts.iterate_revisions(
                    current or "base",
                    _relative(scripts, current, target),
                    select_for_downgrade=True,
                )
                if script is not None
            ]
        async with _alone():
            found = []
            for script in steps:
                recording = record(script)
                if not recording.has_downgrade or not recording.downgrade:
                    found.append(f"{script.revision}: what it does cannot be seen beforehand")
                found += [
                    f"{script.revision}: {step.statement.text}"
                    for step in recording.downgrade
                    if step.statement.loses_rows
                ]
            return found

    async def sql(self, start: str = "base", end: str = "head") -> str:
        """Return the SQL of the way from one revision to another, for whom runs it by hand.

        It takes the lock of `upgrade`, waits for locks as the settings say, and keeps the table of
        revisions.

        Raises:
            MigrationError: no such revision, or one that asks a database what to do.
        """
        schema = quoted_name(self.database.schema)
        written = io.StringIO()
        timeout = round(self.database.settings.lock_timeout_seconds * 1000)
        written.write(
            f"-- {self.database.schema}: {start} to {end}. In one session, with ON_ERROR_STOP.\n"
            f"SELECT pg_advisory_lock(hashtextextended("
            f"{quoted_text('glam.migrate.' + self.database.schema)}, 0));\n"
            f"CREATE SCHEMA IF NOT EXISTS {schema};\n"
            f"SET search_path = {schema};\nSET statement_timeout = 0;\n"
            f"SET lock_timeout = {timeout};\n\n"
        )
        async with _alone():
            config = self._config()
            config.output_buffer = written
            if end == "head":
                end = self.newest() or "base"
            if start != end:
                with self._told(f"{start} or {end}"):
                    try:
                        command.upgrade(config, f"{start}:{end}", sql=True)
                    except (AttributeError, TypeError) as error:
                        raise MigrationError(
                            f"a revision between {start} and {end} asks a database what to do, so "
                            "its SQL cannot be written beforehand; let it look at "
                            f"op.get_context().as_sql: {error}"
                        ) from error
        return written.getvalue()

    def heads(self) -> list[str]:
        """Return the newest revisions: one, unless two branches of work were merged carelessly."""
        return list(self._scripts().get_heads())

    def history(self) -> list[Revision]:
        """Return all revisions, newest first."""
        return [
            Revision(script.revision, script.doc, _tuple(script.down_revision))
            for script in self._scripts().walk_revisions()
        ]

    def _scripts(self) -> ScriptDirectory:
        _check_files(self.folder)
        with self._told(""):
            scripts = ScriptDirectory.from_config(self._config())
            scripts.get_heads()  # reads the files
            return scripts

    def newest(self) -> str:
        """Return the newest revision; empty when there are none.

        Raises:
            MigrationError: two were written after the same one.
        """
        heads = self.heads()
        if len(heads) > 1:
            first, *others = sorted(heads)
            raise MigrationError(
                f"{self.folder} has {len(heads)} newest revisions, {', '.join(sorted(heads))}: two "
                f"were written after the same one. Let {' and '.join(others)} follow: "
                f'down_revision = "{first}"'
            )
        return heads[0] if heads else ""

    def _is_ahead(self, current: str) -> bool:
        """Whether the schema is at a revision that the files do not have.

        Raises:
            MigrationError: they had it, before a baseline replaced it.
        """
        scripts = self._scripts()
        known = {script.revision: script for script in scripts.walk_revisions()}
        unknown = [head for head in filter(None, current.split(", ")) if head not in known]
        for script in known.values():
            replaced = set(getattr(script.module, "replaces", ())) & set(unknown)
            if replaced:
                raise MigrationError(
                    f"schema {self.database.schema} is at {current}, which {script.revision} "
                    f"replaced: bring it to {script.revision} with the release before the squash, "
                    "then start this one"
                )
        if unknown:
            _logger.warning(
                "the schema is ahead of this code; it is left as it is",
                extra={"schema": self.database.schema, "revision": current},
            )
        return bool(unknown)

    def _next(self) -> tuple[str, str]:
        """Return the number of the next revision and the form of its file's name, as Alembic's."""
        numbers = [int(revision.id) for revision in self.history() if revision.id.isdecimal()]
        number = f"{max(numbers, default=0) + 1:04}"
        files = sorted(path.name for path in self.folder.glob("*.py") if path.name[0] != "_")
        prefix = "" if files and files[-1][0].isdecimal() else "rev_"
        return number, f"{prefix}%%(rev)s_%%(slug)s"

    @contextmanager
    def _told(self, revision: str) -> Iterator[None]:
        """Say what Alembic found wrong in a sentence that names what there is."""
        try:
            yield
        except MigrationError:
            raise
        except CommandError as error:
            words = str(error)
            if "locate revision" in words or "relative" in words.lower():
                known = ", ".join(script.id for script in reversed(self.history()))
                words = f"there is no revision {revision}; there are {known or 'none'}"
            raise MigrationError(words, operation="migrate") from error

    def _config(
        self,
        connection: Connection | None = None,
        metadata: MetaData | None = None,
        tables: Collection[str] | None = None,
    ) -> Config:
        config = Config(stdout=io.StringIO())  # Alembic would tell what it generates
        config.set_main_option("script_location", _escaped(_ENVIRONMENT))
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", _escaped(self.folder))
        chosen = tables if tables is not None else metadata.tables if metadata is not None else ()
        config.attributes.update(
            connection=connection,
            schema=self.database.schema,
            target_metadata=metadata,
            render_item=render_type,
            include_object=only_tables(chosen) if metadata is not None else None,
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
        async with _alone():
            engine = self.database.create_engine(poolclass=NullPool)
            try:
                with translate_errors("migrate"):
                    async with engine.connect() as connection:
                        # Building an index may take an hour; waiting for a table's lock may not.
                        await connection.execute(text("SET statement_timeout = 0"))
                        await connection.commit()
                        yield connection
            finally:
                await engine.dispose()


@asynccontextmanager
async def _alone() -> AsyncIterator[None]:
    while not _alembic_is_busy.acquire(blocking=False):  # noqa: ASYNC110 - across loops
        await asyncio.sleep(_LOCK_RETRY_SECONDS)
    try:
        yield
    finally:
        _alembic_is_busy.release()


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


def _check_files(folder: Path) -> None:
    """Look at the revision files before Alembic reads them, to tell what is wrong with the line.

    Raises:
        MigrationError: one does not compile, or two have the same revision, of which Alembic would
            take one and forget the other.
    """
    seen: dict[str, Path] = {}
    for path in revision_files(folder):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except SyntaxError as error:
            raise MigrationError(f"{path}:{error.lineno}: does not compile: {error.msg}") from error
        revision = read_revision(tree)
        if revision is None:
            continue
        other = seen.setdefault(revision, path)
        if other is not path:
            raise MigrationError(
                f"{other.name} and {path.name} in {folder} are both revision {revision}: give the "
                f'later one the next number, in its name too, and down_revision = "{revision}"'
            )


def _relative(scripts: ScriptDirectory, current: str, revision: str | None) -> str | None:
    """Return where ``-2`` leads."""
    if revision is None or not re.fullmatch(r"-\d+", revision):
        return revision
    way = list(scripts.iterate_revisions(current or "base", "base"))
    steps = int(revision[1:])
    if steps > len(way):
        raise MigrationError(
            f"there are {len(way)} revisions to go back from {current or 'the beginning'}, "
            f"not {steps}"
        )
    return way[steps].revision if steps < len(way) else None


def _escaped(path: Path) -> str:
    return str(path).replace("%", "%%")  # Alembic's configuration interpolates


def _tuple(revisions: object) -> tuple[str, ...]:
    if revisions is None:
        return ()
    return (revisions,) if isinstance(revisions, str) else tuple(map(str, revisions))  # type: ignore[call-overload]
