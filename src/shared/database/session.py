"""A path of the first design: what it names lives in `shared.legacy.database.session`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.database.session import (
        DatabaseSessionManager,
    )

__all__ = [
    "DatabaseSessionManager",
]

__getattr__, __dir__ = handed_on(__name__)
