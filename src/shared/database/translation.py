"""The gate between the drivers' errors and ours."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import exc as sa
from sqlalchemy.orm.exc import StaleDataError

from shared.database.open_transactions import FailedTransactionError
from shared.database.tenancy import NO_TENANT, TenantRequiredError
from shared.errors import ConflictError, DatabaseError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.errors import GlamBaseError

__all__ = ["translate_errors", "translated"]

# SQLSTATE, PostgreSQL manual appendix A.
_UNIQUE_VIOLATION = "23505"
_EXCLUSION_VIOLATION = "23P01"
_INTEGRITY_CLASS = "23"
_DATA_CLASS = "22"
_RETRYABLE_CLASSES = frozenset(
    {
        "08",  # connection exception
        "40",  # serialization failure, deadlock
        "53",  # insufficient resources: too many connections, disk full
        "55",  # object not in prerequisite state: lock timeout
        "57",  # operator intervention: shutdown, statement timeout
        "58",  # system error: IO
    }
)
_IDLE_IN_TRANSACTION_TIMEOUT = "25P03"
_IN_FAILED_TRANSACTION = "25P02"


@contextmanager
def translate_errors(operation: str | None = None) -> Iterator[None]:
    """Raise errors of SQLAlchemy and asyncpg as errors of `shared.errors`, cause attached.

    Args:
        operation: what was being done, for the error's details.

    Raises:
        ConflictError: a unique or exclusion constraint (``details["constraint"]``) or the version
            of a row stands against it.
        ValidationError: another constraint, or a value its column cannot hold.
        DatabaseError: anything else; ``retryable`` says whether the same may succeed later.
    """
    try:
        yield
    except Exception as error:
        ours = translated(error, operation)
        if ours is None:
            raise
        raise ours from error


def translated(error: BaseException, operation: str | None = None) -> GlamBaseError | None:
    """Return what ``error`` is called among our errors; None when it is not a driver's."""
    if isinstance(error, StaleDataError):
        return ConflictError("the row was changed or deleted by someone else")
    if isinstance(error, sa.TimeoutError):
        return DatabaseError(
            "no database connection became free in time", operation=operation, retryable=True
        )
    if isinstance(error, sa.DBAPIError):
        return _of_driver(_driver_error(error), operation, lost=error.connection_invalidated)
    if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError)):
        return _of_driver(error, operation, lost=False)
    if isinstance(error, sa.SQLAlchemyError):
        return DatabaseError(_first_line(error), operation=operation, retryable=False)
    return None


def _driver_error(error: sa.DBAPIError) -> BaseException:
    """Asyncpg's own error, which SQLAlchemy keeps as the cause of the DBAPI one it imitates."""
    adapted = error.orig
    if adapted is None:
        return error
    return adapted.__cause__ or adapted


def _of_driver(error: BaseException, operation: str | None, *, lost: bool) -> GlamBaseError:
    state: str | None = getattr(error, "sqlstate", None)
    table: str | None = getattr(error, "table_name", None)
    constraint: str | None = getattr(error, "constraint_name", None)
    column: str | None = getattr(error, "column_name", None)
    if state in {_UNIQUE_VIOLATION, _EXCLUSION_VIOLATION}:
        # PostgreSQL's text is not handed on: it quotes the row's values.
        return ConflictError(
            f"it exists already in {table}" if table else "it exists already",
            conflicting_resource=table,
            constraint=constraint,
        )
    if state == NO_TENANT:
        return TenantRequiredError(
            f"{_first_line(error)}: bind the merchant with tenant_scope(merchant_id), or say "
            "system_scope(reason) for work across merchants",
            error_code=state,
        )
    if state == _IN_FAILED_TRANSACTION:
        return FailedTransactionError(
            "a statement had failed before and the error was passed over; run such a statement in "
            "a savepoint",
            operation=operation,
            error_code=state,
        )
    kind = (state or "")[:2]
    if kind == _INTEGRITY_CLASS:
        return ValidationError(
            f"constraint of {table or 'the database'} violated: {constraint or column or state}",
            field=column,
            table=table,
            constraint=constraint,
        )
    if kind == _DATA_CLASS or isinstance(error, asyncpg.DataError):
        return ValidationError("a value does not fit its column", field=column, error_code=state)
    retryable = (
        lost
        or kind in _RETRYABLE_CLASSES
        or state == _IDLE_IN_TRANSACTION_TIMEOUT
        or isinstance(error, (asyncpg.InterfaceError, OSError, TimeoutError))
    )
    return DatabaseError(
        _first_line(error),
        operation=operation,
        table=table,
        error_code=state,
        retryable=retryable,
    )


def _first_line(error: BaseException) -> str:
    """The message without the statement and the parameters that SQLAlchemy adds below it."""
    text = str(error.args[0]) if error.args else str(error)
    return text.splitlines()[0] if text else type(error).__name__
