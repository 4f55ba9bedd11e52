"""The first design's owner of engine and session factory, kept for services that construct it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from shared.database.engine.translation import translate_errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["DatabaseSessionManager"]


class DatabaseSessionManager:
    """Engine and sessions of one database, given as a URL. New code: `shared.database.Database`.

    Args:
        database_url: with an async driver, e.g. ``postgresql+asyncpg://...``.
        echo: log every statement.
        pool_size: connections kept.
        max_overflow: connections above that, closed after use.
        pool_pre_ping: test a connection before it is handed out.
        pool_recycle: seconds after which a connection is replaced.
    """

    def __init__(
        self,
        database_url: str,
        echo: bool = False,
        pool_size: int = 5,
        max_overflow: int = 10,
        pool_pre_ping: bool = True,
        pool_recycle: int = 3600,
    ) -> None:
        self._database_url = database_url
        self._echo = echo
        self._pool_size = pool_size
        self._max_overflow = max_overflow
        self._pool_pre_ping = pool_pre_ping
        self._pool_recycle = pool_recycle
        self._engine: AsyncEngine | None = None
        self._session_factory: async_sessionmaker[AsyncSession] | None = None

    async def init(self) -> None:
        """Make the engine; a second call changes nothing."""
        if self._engine is not None:
            return
        self._engine = create_async_engine(
            self._database_url,
            echo=self._echo,
            pool_size=self._pool_size,
            max_overflow=self._max_overflow,
            pool_pre_ping=self._pool_pre_ping,
            pool_recycle=self._pool_recycle,
        )
        self._session_factory = async_sessionmaker(self._engine, expire_on_commit=False)

    async def close(self) -> None:
        """Close the pool; harmless twice and before ``init``."""
        engine, self._engine, self._session_factory = self._engine, None, None
        if engine is not None:
            await engine.dispose()

    @asynccontextmanager
    async def get_session(self) -> AsyncIterator[AsyncSession]:
        """Open a session: committed at the end, rolled back on an error or cancellation."""
        with translate_errors():
            async with self.session_factory() as session:
                yield session
                await session.commit()

    @property
    def engine(self) -> AsyncEngine:
        """The engine.

        Raises:
            RuntimeError: before ``init`` or after ``close``.
        """
        if self._engine is None:
            raise RuntimeError("DatabaseSessionManager: await init() first")
        return self._engine

    @property
    def session_factory(self) -> async_sessionmaker[AsyncSession]:
        """What makes the sessions.

        Raises:
            RuntimeError: before ``init`` or after ``close``.
        """
        if self._session_factory is None:
            raise RuntimeError("DatabaseSessionManager: await init() first")
        return self._session_factory
