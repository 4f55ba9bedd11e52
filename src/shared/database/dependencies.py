"""A path of the first design: what it names lives in `shared.legacy.database.dependencies`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.database.dependencies import (
        DBSessionDep,
        get_database_health,
        get_database_manager,
        get_db_session,
        set_database_manager,
    )

__all__ = [
    "DBSessionDep",
    "get_database_health",
    "get_database_manager",
    "get_db_session",
    "set_database_manager",
]

__getattr__, __dir__ = handed_on(__name__)
