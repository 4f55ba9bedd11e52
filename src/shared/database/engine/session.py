"""The sessions of a `Database`: where their transactions go, and which one is open here."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from shared.database.engine.transactions import tell_tenant
from shared.database.tenancy.scopes import TenantMismatchError, in_system_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import SessionTransaction

    from shared.database.engine.replicas import Replicas


class RoutedSession(Session):
    """A session that decides at its first statement where its transaction goes.

    That is the primary, a standby, or the engine of the role across tenants.

    Args:
        system_engine: returns the engine of the role across tenants.
        replicas: for a session that only reads.
        **options: as SQLAlchemy's.
    """

    def __init__(
        self,
        *,
        system_engine: Callable[[], Engine],
        replicas: Replicas | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._system_engine = system_engine
        self._replicas = replicas
        self._route: Engine | Connection | None = None
        self._standby: Connection | None = None
        self._is_system = False

    def get_bind(self, mapper: Any = None, **options: Any) -> Engine | Connection:
        """Return where the transaction goes: the same place until it ends.

        Raises:
            TenantMismatchError: it began outside of `system_scope` and is used inside, or the
                other way round.
            ConfigError: the first use in `system_scope`, and ``database.system_user`` is not set.
        """
        if self._route is None:
            self._is_system = in_system_scope()
            if self._is_system:
                self._route = self._system_engine()
            else:
                if self._replicas is not None:
                    self._standby = self._replicas.connect()
                self._route = self._standby or super().get_bind(mapper, **options)
        elif in_system_scope() != self._is_system:
            here, there = ("inside", "outside") if self._is_system else ("outside", "inside")
            raise TenantMismatchError(
                f"this transaction began {here} of system_scope and is used {there} of it: "
                "open a unit of work for each"
            )
        return self._route

    def leave_route(self) -> None:
        """Decide anew at the next statement."""
        standby, self._standby, self._route = self._standby, None, None
        if standby is not None:
            standby.close()


@event.listens_for(RoutedSession, "after_begin", propagate=True)
def _tell(_session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    # Before any statement would: a COPY by the driver passes by the engine's events.
    tell_tenant(connection)


@event.listens_for(RoutedSession, "after_transaction_end", propagate=True)
def _leave(session: RoutedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.leave_route()


class bind_session:  # noqa: N801 - called like a function
    """Make ``session`` the current one of this task until the block ends.

    The former one, if any, is current again afterwards.

    Args:
        session: the session, or what makes it when it is first asked for.
    """

    __slots__ = ("_open", "_outer", "_owner", "_session")

    def __init__(self, session: AsyncSession | Callable[[], AsyncSession]) -> None:
        self._session = session
        self._open = False

    def __enter__(self) -> None:
        self._owner = _current_task()
        self._outer = _binding.get()
        self._open = True
        _binding.set(self)

    def __exit__(self, *_: object) -> None:
        # Tasks started inside keep a copy of the context: for them, too, it is over now.
        self._open = False
        _binding.set(self._outer)

    def current(self) -> AsyncSession | None:
        """Return the session to the task that bound it; None when the block has ended."""
        if not self._open:
            return None
        if self._owner is not _current_task():
            raise RuntimeError(
                "a unit of work belongs to the task that opened it: open another one in this task, "
                "or work outside of it with `with detached():` from shared.database"
            )
        return self._session() if callable(self._session) else self._session


_binding: ContextVar[bind_session | None] = ContextVar("shared_database_session", default=None)


def current_session() -> AsyncSession | None:
    """Return the session of the open unit of work; None when there is none.

    A session serves one task. A task started inside a unit of work inherits its context, yet must
    not write through the same session at the same time, and must not quietly commit on its own
    what its author believed to be part of the unit of work either. So it is refused.

    Raises:
        RuntimeError: the unit of work that is open here belongs to another task.
    """
    binding = _binding.get()
    return None if binding is None else binding.current()


@contextmanager
def detached() -> Iterator[None]:
    """Step outside of the unit of work: within the block, and in tasks started there, none is open.

    ``with detached(): asyncio.create_task(work())`` starts work with transactions of its own.

    >>> async with units():
    ...     with detached():
    ...         order = await orders.save(Order(number="1001", total=Money(5, "EUR")))  # committed
    >>> current_session() is None
    True
    """
    outer = _binding.get()
    _binding.set(None)
    try:
        yield
    finally:
        _binding.set(outer)


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return None
