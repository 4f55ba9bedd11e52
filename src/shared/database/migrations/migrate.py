"""A schema brought up to the newest revision when a service starts.

Most starts find it there. That is seen by reading the revision files and one row, without Alembic,
which takes longer to load than all else that a start does with the database.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import column, select, table, text

from shared.database.engine.translation import translate_errors
from shared.database.migrations.source import newest_revision

if TYPE_CHECKING:
    from shared.database.engine.database import Database

__all__ = ["migrate", "revisions_folder"]

_VERSIONS = "alembic_version"  # Alembic's own name for its table


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
        MigrationError: the revisions do not make one line, or a file does not compile.
    """
    newest = newest_revision(revisions_folder(migrations))
    if newest is not None and await _revisions_of(database) == [newest]:
        return newest
    from shared.database.migrations.runner import Migrations  # noqa: PLC0415 - brings Alembic

    return await Migrations(database, migrations).upgrade()


def revisions_folder(migrations: Path | str) -> Path:
    """Return the folder that holds the revision files.

    Raises:
        FileNotFoundError: no such folder or package.
    """
    folder = _root(migrations)
    return folder / "versions" if (folder / "versions").is_dir() else folder


async def _revisions_of(database: Database) -> list[str]:
    """Return what Alembic has noted in the schema; nothing where there is no note of its."""
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


def _root(migrations: Path | str) -> Path:
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
