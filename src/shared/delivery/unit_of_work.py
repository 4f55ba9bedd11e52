"""The unit of work: rows and messages of one decision, committed together."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeVar

from shared.database import Base, Repository, bind_session, translate_errors
from shared.database.translation import translated
from shared.delivery.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from shared.database import Database
    from shared.events import Contract

__all__ = ["UnitOfWork", "UnitOfWorkFactory"]

_logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Base)


class UnitOfWork:
    """One transaction: ``async with`` commits it, or rolls it back on an error or cancellation.

    No connection is taken before the first statement. Repositories used in the block by the same
    task join it. It serves once and belongs to the task that entered it.

    Args:
        database: where.
        service: the service, named as source of its messages.
        publishes: contracts the service has declared; None allows any.
        on_commit: called after a commit that holds messages; wakes the relay of this process.
        notify: wake relays of other processes with NOTIFY. Off, they find the messages when they
            next poll. (A commit with a NOTIFY takes a lock that is global to the PostgreSQL server;
            thousands of such commits a second queue up behind it.)

    Raises (on leaving the block):
        ConflictError, ValidationError, DatabaseError: as `shared.database.translate_errors`.
    """

    def __init__(
        self,
        database: Database,
        *,
        service: str,
        publishes: Collection[Contract[Any]] | None = None,
        on_commit: Callable[[], None] | None = None,
        notify: bool = True,
    ) -> None:
        self._database = database
        self._service = service
        self._publishes = publishes
        self._on_commit = on_commit
        self._notify = notify
        self._session: AsyncSession | None = None
        self._outbox: Outbox | None = None
        self._binding = ExitStack()

    @property
    def session(self) -> AsyncSession:
        """The session of the transaction. It is committed by leaving the block, not by the user.

        Raises:
            RuntimeError: outside of the block.
        """
        if self._session is None:
            raise RuntimeError("the unit of work is not open: use it inside `async with`")
        return self._session

    @property
    def outbox(self) -> Outbox:
        """Takes the messages to publish if the transaction commits.

        Raises:
            RuntimeError: outside of the block.
        """
        if self._outbox is None:
            raise RuntimeError("the unit of work is not open: use it inside `async with`")
        return self._outbox

    def repository(self, model: type[M], *, merchant_id: UUID | None = None) -> Repository[M]:
        """Return a repository that works in this transaction; for one merchant only, if named."""
        return Repository(
            model,
            self._database.session_factory,
            session=self.session,
            merchant_id=merchant_id,
        )

    async def __aenter__(self) -> Self:
        if self._session is not None:
            raise RuntimeError("the unit of work is open already")
        self._session = self._database.session_factory()
        self._outbox = Outbox(
            self._session, service=self._service, publishes=self._publishes, notify=self._notify
        )
        self._binding.enter_context(bind_session(self._session))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        session, outbox = self.session, self.outbox
        self._session = self._outbox = None
        self._binding.close()
        # Leaving the session rolls back what is not committed and gives the connection back, even
        # when this task is cancelled meanwhile.
        if error is not None:
            try:
                await session.__aexit__(kind, error, trace)
            except Exception as failure:  # noqa: BLE001 - the connection is lost: all is undone
                _logger.warning("rollback failed: %s", failure)
            ours = translated(error)
            if ours is not None:
                raise ours from error
            return
        with translate_errors("commit"):
            async with session:
                await session.commit()
        if outbox.used and self._on_commit is not None:
            self._on_commit()


class UnitOfWorkFactory:
    """Makes the units of work of one service; called, it makes one. Arguments as `UnitOfWork`."""

    def __init__(
        self,
        database: Database,
        *,
        service: str,
        publishes: Collection[Contract[Any]] | None = None,
        on_commit: Callable[[], None] | None = None,
        notify: bool = True,
    ) -> None:
        self._database = database
        self._service = service
        self._publishes = publishes
        self._on_commit = on_commit
        self._notify = notify

    def __call__(self) -> UnitOfWork:
        """Make a unit of work, not yet open."""
        return UnitOfWork(
            self._database,
            service=self._service,
            publishes=self._publishes,
            on_commit=self._on_commit,
            notify=self._notify,
        )
