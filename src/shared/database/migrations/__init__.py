"""Migrations: a service keeps its revisions, everything around them is here.

Alembic is loaded when it is needed, which most starts of a service do not.
"""

from typing import TYPE_CHECKING

from shared._lazy import lazy_names
from shared.database.migrations.migrate import migrate
from shared.legacy.table import names_of_first_design

if TYPE_CHECKING:
    from shared.database.migrations.errors import MigrationError
    from shared.database.migrations.migrations import Migrations, Revision
    from shared.legacy.database.migrations import (
        MigrationManager,
        create_alembic_env_template,
    )

__all__ = [
    "MigrationError",
    "MigrationManager",
    "Migrations",
    "Revision",
    "create_alembic_env_template",
    "migrate",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **names_of_first_design(__name__),
        "MigrationError": "shared.database.migrations.errors",
        "Migrations": "shared.database.migrations.migrations",
        "Revision": "shared.database.migrations.migrations",
    },
)
