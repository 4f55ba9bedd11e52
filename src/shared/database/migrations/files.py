"""Revision files looked at before Alembic reads them: what is wrong is told with file and line."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from alembic.util import CommandError

from shared.database.migrations.source import read_revision, revision_files
from shared.errors import DatabaseError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["MigrationError", "check_files"]


class MigrationError(DatabaseError, CommandError):
    """The revisions, or the schema and the revisions together, are not as they must be."""

    code = "MIGRATION_ERROR"
    retryable: bool = False


def check_files(folder: Path) -> None:
    """Look at the revision files of a folder.

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
