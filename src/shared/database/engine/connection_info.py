"""What we note about a connection while somebody has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["info_of"]


def info_of(connection: Connection) -> dict[Any, Any]:
    """Return SQLAlchemy's notes about the connection; of one that is lost, none.

    Asking a lost one itself would try to connect again, in the middle of a rollback.
    """
    return {} if connection.closed or connection.invalidated else connection.info
