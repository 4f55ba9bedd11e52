"""A path of the first design: what it names lives in `shared.legacy.database.config`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.database.config import (
        DatabaseConfig,
        create_database_config,
    )

__all__ = [
    "DatabaseConfig",
    "create_database_config",
]

__getattr__, __dir__ = handed_on(__name__)
