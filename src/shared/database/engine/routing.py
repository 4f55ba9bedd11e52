"""Where a transaction goes: to the primary, to a standby, or in as the role across merchants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from shared.database.tenancy.scopes import (
    TenantMismatchError,
    has_scope,
    in_system_scope,
    tell_tenant,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import SessionTransaction

    from shared.database.engine.replicas import Replicas

__all__ = ["PooledSession", "RoutedSession"]


class RoutedSession(Session):
    """A session that decides at its first statement where its transaction goes.

    Args:
        system_engine: returns the engine of the role across merchants.
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

    @staticmethod
    def may_be_passed_by() -> bool:
        """Whether there is nothing to tell, so that a statement can do without a transaction."""
        return not has_scope()

    def get_bind(self, mapper: Any = None, **options: Any) -> Engine | Connection:
        """Return where the transaction goes: the same place until it ends.

        Raises:
            TenantMismatchError: it began outside of `system_scope` and is used inside, or the
                other way round.
            ConfigError: the first use in `system_scope`, and ``database.system_user`` is not set.
        """
        if self._route is None:
            self._is_system = in_system_scope()
            self._route = self._choose(mapper, options)
        elif in_system_scope() != self._is_system:
            here, there = ("inside", "outside") if self._is_system else ("outside", "inside")
            raise TenantMismatchError(
                f"this transaction began {here} of system_scope and is used {there} of it: "
                "open a unit of work for each"
            )
        return self._route

    def _choose(self, mapper: Any, options: dict[str, Any]) -> Engine | Connection:
        if self._is_system:
            return self._system_engine()
        if self._replicas is not None:
            self._standby = self._replicas.connect()
        return self._standby or super().get_bind(mapper, **options)

    def leave_route(self) -> None:
        """Decide anew at the next statement."""
        standby, self._standby, self._route = self._standby, None, None
        if standby is not None:
            standby.close()


class PooledSession(RoutedSession):
    """A session behind a pooler, where every transaction is told what elsewhere sessions keep."""

    @staticmethod
    def may_be_passed_by() -> bool:
        """Return False: there is always something to tell."""
        return False


@event.listens_for(RoutedSession, "after_begin", propagate=True)
def _tell(_session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    # Before any statement would: a COPY by the driver passes by the engine's events.
    tell_tenant(connection)


@event.listens_for(RoutedSession, "after_transaction_end", propagate=True)
def _leave(session: RoutedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session.leave_route()
