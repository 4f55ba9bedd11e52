"""Error translation: what the drivers raise, as errors of `shared.errors`."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import asyncpg
from sqlalchemy import Index, Table
from sqlalchemy import exc as sa
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.schema import ColumnCollectionConstraint

from shared.database.engine.transactions import FailedTransactionError
from shared.database.tenancy.row_security import NO_TENANT
from shared.database.tenancy.scopes import TenantRequiredError
from shared.errors import ConflictError, DatabaseError, GlamBaseError, ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import FromClause


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
_FOREIGN_KEY_VIOLATION = "23503"
_RESTRICT_VIOLATION = "23001"
_CARDINALITY_VIOLATION = "21000"

# 'Key (merchant_id, name)=(..., ...) already exists.' in any language: it is what is in brackets.
_KEY = re.compile(r"\(([^()]+)\)=\(")
_STALE_TABLE = re.compile(r"on table '([^']+)'")


@contextmanager
def translate_errors(
    operation: str | None = None, *, table: FromClause | None = None
) -> Iterator[None]:
    """Raise errors of SQLAlchemy and asyncpg as errors of `shared.errors`, cause attached.

    Args:
        operation: what was being done, for the error's details.
        table: knows the columns of its constraints, which PostgreSQL keeps to itself where
            row-level security is on.

    Raises:
        ConflictError: the present rows stand against it: a unique or exclusion constraint, a row
            that others refer to, or the version of a row. Its details are
            ``conflicting_resource`` (the table), ``constraint`` and ``columns``.
        ValidationError: another constraint, or a value its column cannot hold. Its details are
            ``table``, ``constraint``, ``columns`` and, where it is one column, ``field``; of a
            value that does not fit, ``error_code``.
        DatabaseError: anything else; ``retryable`` says whether the same may succeed later.
    """
    try:
        yield
    except Exception as error:
        ours = translated(error, operation, table=table)
        if ours is None:
            raise
        raise ours from error


def translated(  # noqa: PLR0911 - one line a kind
    error: BaseException, operation: str | None = None, *, table: FromClause | None = None
) -> GlamBaseError | None:
    """Return what ``error`` is called among our errors; None when it is not a driver's."""
    if isinstance(error, StaleDataError):
        stale = _STALE_TABLE.search(str(error))
        return ConflictError(
            "the row was changed or deleted by someone else",
            conflicting_resource=stale[1] if stale else None,
        )
    if isinstance(error, sa.StatementError) and isinstance(error.orig, GlamBaseError):
        return error.orig  # one of our types refused the value
    if isinstance(error, sa.TimeoutError):
        return DatabaseError(
            "no database connection became free in time", operation=operation, retryable=True
        )
    if isinstance(error, sa.DBAPIError):
        lost = error.connection_invalidated
        return _of_driver(_driver_error(error), operation, lost=lost, known=table)
    if isinstance(error, (asyncpg.PostgresError, asyncpg.InterfaceError)):
        return _of_driver(error, operation, lost=False, known=table)
    if isinstance(error, sa.SQLAlchemyError):
        return DatabaseError(_first_line(error), operation=operation, retryable=False)
    return None


def _driver_error(error: sa.DBAPIError) -> BaseException:
    """Asyncpg's own error, which SQLAlchemy keeps as the cause of the DBAPI one it imitates."""
    adapted = error.orig
    if adapted is None:
        return error
    return adapted.__cause__ or adapted


def _of_driver(
    error: BaseException, operation: str | None, *, lost: bool, known: FromClause | None
) -> GlamBaseError:
    state: str | None = getattr(error, "sqlstate", None)
    table: str | None = getattr(error, "table_name", None)
    kind = (state or "")[:2]
    if kind == _INTEGRITY_CLASS:
        return _of_integrity(error, state, known)
    if state == NO_TENANT:
        return TenantRequiredError(
            f"{_first_line(error)}: bind the tenant with tenant_scope(tenant_id), or say "
            "system_scope(reason) for work across tenants",
            error_code=state,
        )
    if state == _IN_FAILED_TRANSACTION:
        return FailedTransactionError(
            "a statement had failed before and the error was passed over; run such a statement in "
            "a savepoint",
            operation=operation,
            error_code=state,
        )
    if state == _CARDINALITY_VIOLATION:
        return ValidationError("two of the rows have the same key", error_code=state)
    if kind == _DATA_CLASS or isinstance(error, asyncpg.DataError):
        column: str | None = getattr(error, "column_name", None)
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


def _of_integrity(
    error: BaseException, state: str | None, known: FromClause | None
) -> ConflictError | ValidationError:
    table: str | None = getattr(error, "table_name", None)
    constraint: str | None = getattr(error, "constraint_name", None)
    column: str | None = getattr(error, "column_name", None)
    columns = [column] if column else _columns(error) or _columns_of(known, table, constraint)
    against = None
    # PostgreSQL's text is not handed on: it quotes the row's values.
    if state in {_UNIQUE_VIOLATION, _EXCLUSION_VIOLATION}:
        against = f"it exists already in {table}" if table else "it exists already"
    elif state == _RESTRICT_VIOLATION or (state == _FOREIGN_KEY_VIOLATION and _refers_to_it(error)):
        against = f"rows of {table} refer to it" if table else "other rows refer to it"
    if against is not None:
        return ConflictError(
            against, conflicting_resource=table, constraint=constraint, columns=columns
        )
    return ValidationError(
        f"constraint of {table or 'the database'} violated: {constraint or column or state}",
        field=columns[0] if columns and len(columns) == 1 else None,
        table=table,
        constraint=constraint,
        columns=columns,
    )


def _columns(error: BaseException) -> list[str] | None:
    """The columns of the key that PostgreSQL's detail names; its values are left behind."""
    found = _KEY.search(getattr(error, "detail", None) or "")
    return [name.strip().strip('"') for name in found[1].split(",")] if found else None


def _columns_of(
    known: FromClause | None, table: str | None, constraint: str | None
) -> list[str] | None:
    if not isinstance(known, Table) or known.name != table:
        return None
    for one in (*known.constraints, *known.indexes):
        if isinstance(one, ColumnCollectionConstraint | Index) and one.name == constraint:
            return [column.name for column in one.columns]
    return None


def _refers_to_it(error: BaseException) -> bool:
    """Whether a foreign key forbids to remove a row, rather than to add one.

    SQLSTATE, table and constraint are the same for both, so the text decides: "update or delete on
    table". A server that speaks another language leaves it undecided, for a ValidationError.
    """
    return "update or delete on table" in str(error.args[0] if error.args else "")


def _first_line(error: BaseException) -> str:
    """The message without the statement and the parameters that SQLAlchemy adds below it."""
    text = str(error.args[0]) if error.args else str(error)
    return text.splitlines()[0] if text else type(error).__name__
