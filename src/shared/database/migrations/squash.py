"""Many revisions made one: PostgreSQL's own dump of what they leave, proved to leave the same."""

from __future__ import annotations

import asyncio
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from shared.database.engine.database import Database
from shared.database.migrations.errors import MigrationError
from shared.database.migrations.migrations import Migrations
from shared.database.migrations.sql_statement import split_statements

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.config import DatabaseSettings


# A name that stands nowhere else, so that it can be taken out of the dump: the schema of a service
# is a setting, and the revision runs in whichever it is.
_BEFORE, _AGAIN, _AFTER = "glam_squash_before", "glam_squash_again", "glam_squash_after"


async def squash_revisions(migrations: Migrations, *, pg_dump: Path | str = "pg_dump") -> str:
    """Return the text of one revision that does what all do.

    It has the id of the newest, so that neither a schema at it nor its table of revisions needs a
    change. It names the others in ``replaces``: `Migrations.upgrade` refuses a schema that is still
    at one of them instead of taking it for newer than the code. Rows that the revisions write into
    an empty schema are in it as they are.

    Args:
        migrations: the revisions; their database is one that nobody misses anything in.
        pg_dump: the program, at least as new as the server. It reads as ``database.system_user``,
            whom no policy hinders.

    Raises:
        MigrationError: no revisions, or several newest; or what the one revision leaves is not what
            they leave.
    """
    settings = migrations.database.settings
    for schema in (_BEFORE, _AGAIN):
        async with Database(settings, schema=schema) as database:
            head = await Migrations(database, migrations.folder).upgrade()
    if not head:
        raise MigrationError(f"there are no revisions in {migrations.folder}")
    replaced = [revision.id for revision in reversed(migrations.history()) if revision.id != head]
    wanted = await _dump(settings, pg_dump, _BEFORE)
    again = await _dump(settings, pg_dump, _AGAIN)
    # Rows that come out differently each time (a random id) are made by the statement that made
    # them, not copied.
    unlike = {_filled(statement) for statement in set(wanted) ^ set(again)} - {""}
    seeds = [seed for seed in await migrations.seeds() if seed[0] in unlike]
    wanted = [statement for statement in wanted if _filled(statement) not in unlike]
    text = _revision(head, replaced, [*wanted, *(sql for _, sql in seeds)])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "baseline.py").write_text(text, encoding="utf-8")
        async with Database(settings, schema=_AFTER) as database:
            await Migrations(database, Path(folder)).upgrade()
    got = [
        statement
        for statement in await _dump(settings, pg_dump, _AFTER)
        if _filled(statement) not in unlike
    ]
    if sorted(got) != sorted(wanted):
        missing = sorted(set(wanted) - set(got)) or sorted(set(got) - set(wanted))
        raise MigrationError(f"the one revision would not leave the same: {missing[0]}")
    return text


async def _dump(settings: DatabaseSettings, pg_dump: Path | str, schema: str) -> list[str]:
    process = await asyncio.create_subprocess_exec(
        str(pg_dump),
        *(
            f"--host={settings.host}",
            f"--port={settings.port}",
            f"--username={settings.system_user or settings.user}",
        ),
        *(f"--dbname={settings.name}", f"--schema={schema}", "--column-inserts"),
        *("--no-owner", "--no-privileges"),
        f"--exclude-table={schema}.alembic_version",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    if process.returncode:
        raise MigrationError(f"pg_dump: {errors.decode().strip()}")
    lines = [line for line in out.decode().splitlines() if not line.startswith("\\")]
    statements = [statement.text for statement in split_statements("\n".join(lines))]
    return [
        re.sub(rf"(?m)^--.*\n?|\b{schema}\.", "", statement).strip()
        for statement in statements
        if not _is_about_the_session(re.sub(r"(?m)^--.*\n?", "", statement).strip())
    ]


def _is_about_the_session(statement: str) -> bool:
    return bool(re.match(r"SET |SELECT pg_catalog.set_config|CREATE SCHEMA ", statement))


def _filled(statement: str) -> str:
    """The table that an INSERT fills; empty for another statement."""
    match = re.match(r"INSERT INTO (\S+) ", statement)
    return match[1] if match else ""


def _revision(head: str, replaced: list[str], statements: Iterable[str]) -> str:
    body = "\n\n".join(f"{statement};" for statement in statements)
    quotes = "'''" if '"""' in body else '"""'
    return f'''\
"""The schema as the revisions up to {head} leave it."""

from alembic import op

from shared.database import operations

revision = "{head}"
down_revision = None
branch_labels = None
depends_on = None
# A schema at one of these has to be brought to {head} by the release that still has them.
replaces = {tuple(replaced)!r}

SQL = r{quotes}
{body}
{quotes}


def upgrade() -> None:
    """Create everything."""
    operations.run_sql(op, SQL)


def downgrade() -> None:
    """Drop nothing: before the baseline there is nothing to go back to."""
    raise NotImplementedError("before the baseline there is nothing: drop the schema")
'''
