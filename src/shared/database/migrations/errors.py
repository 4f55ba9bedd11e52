"""What is wrong with revisions."""

from __future__ import annotations

from alembic.util import CommandError

from shared.errors import DatabaseError


class MigrationError(DatabaseError, CommandError):
    """The revisions, or the schema and the revisions together, are not as they must be."""

    code = "MIGRATION_ERROR"
    retryable: bool = False
