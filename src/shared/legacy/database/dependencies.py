"""Sessions as FastAPI dependencies, from the manager the service has set."""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Depends
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from shared.errors import GlamBaseError
from shared.legacy.database.session import DatabaseSessionManager

__all__ = [
    "DBSessionDep",
    "get_database_health",
    "get_database_manager",
    "get_db_session",
    "set_database_manager",
]

_manager: DatabaseSessionManager | None = None


def set_database_manager(manager: DatabaseSessionManager) -> None:
    """Set the manager of this process."""
    global _manager  # noqa: PLW0603 - the first design's interface
    _manager = manager


def get_database_manager() -> DatabaseSessionManager:
    """Return the manager of this process.

    Raises:
        RuntimeError: none was set.
    """
    if _manager is None:
        raise RuntimeError("no database manager: call set_database_manager() when the app starts")
    return _manager


async def get_db_session() -> AsyncGenerator[AsyncSession, None]:
    """Yield a session: committed after the endpoint, rolled back on an error or cancellation."""
    async with get_database_manager().get_session() as session:
        yield session


async def get_database_health() -> bool:
    """Say whether the database answers."""
    try:
        async with get_database_manager().get_session() as session:
            await session.execute(text("SELECT 1"))
    except (GlamBaseError, SQLAlchemyError, OSError, RuntimeError):
        return False
    return True


# Function scope: the commit comes before the answer. A client never hears 201 of what then fails.
DBSessionDep = Annotated[AsyncSession, Depends(get_db_session, scope="function")]
