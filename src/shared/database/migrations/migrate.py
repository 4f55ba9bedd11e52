"""A schema brought up to the newest revision when a service starts.

Most starts find it there. That is seen by reading the revision files and one row, without Alembic,
which takes longer to load than all else that a start does with the database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import column, select, table, text

from shared.database.engine.translation import translate_errors
from shared.database.migrations.revision_files import newest_revision, revisions_folder

if TYPE_CHECKING:
    from pathlib import Path

    from shared.database.engine.database import Database


_VERSIONS = "alembic_version"  # Alembic's own name for its table


async def migrate(database: Database, *, migrations: Path | str) -> str:
    """Bring the schema up to the newest revision; create it first if need be.

    Any number of replicas may call this at the same time: one works, the others wait and then
    find nothing to do.

    >>> async with Database(settings, schema="billing") as billing:
    ...     await migrate(billing, migrations="shared.delivery.migrations")
    '0003'

    Args:
        database: whose ``schema`` is migrated; ``alembic_version`` lives there as well.
        migrations: folder of the revision files, or the package that is this folder.

    Returns:
        The revision the schema is at; empty when there are no revisions.

    Raises:
        FileNotFoundError: no such folder or package.
        DatabaseError: the database is away, or a statement failed.
        MigrationError: the revisions do not make one line, or a file does not compile.
    """
    newest = newest_revision(revisions_folder(migrations))
    if newest is not None and await _revisions_of(database) == [newest]:
        return newest
    from shared.database.migrations.migrations import Migrations  # noqa: PLC0415 - brings Alembic

    return await Migrations(database, migrations).upgrade()


async def _revisions_of(database: Database) -> list[str]:
    """Return what Alembic has noted in the schema; nothing where it has noted none."""
    versions = table(_VERSIONS, column("version_num"), schema=database.schema)
    # Asked first: a statement on a table that is not there is an error in the server's log.
    exists = text(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_tables"
        " WHERE schemaname = :schema AND tablename = :name)"
    )
    with translate_errors("migrate"):
        async with database.engine.connect() as connection:
            if not await connection.scalar(exists, {"schema": database.schema, "name": _VERSIONS}):
                return []
            return list(await connection.scalars(select(versions.c.version_num)))
