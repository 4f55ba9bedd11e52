"""Transactions between two statements: those a task forgets, and those PostgreSQL has given up."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import event

from shared.database.engine.connection_info import info_of
from shared.database.engine.statement_summary import summary_of
from shared.errors import DatabaseError
from shared.metrics import database_idle_transactions_total

if TYPE_CHECKING:
    from types import CoroutineType, FrameType

    from sqlalchemy import Connection
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = [
    "CommitMark",
    "FailedTransactionError",
    "refuse_failed_commits",
    "warn_of_idle_transactions",
]

_logger = logging.getLogger(__name__)

_FAILED = "glam.failed"
_TIMER = "glam.idle"


@dataclass(slots=True)
class CommitMark:
    """Whether COMMIT was sent; carried by the execution options of a session."""

    begun: bool = False


class FailedTransactionError(DatabaseError):
    """A transaction in which a statement had failed was to be committed.

    PostgreSQL has given it up by then, and would answer COMMIT by rolling back without an error.
    Let the error of the statement through, or run the statement in a savepoint.
    """

    code = "TRANSACTION_FAILED"
    status = 500
    retryable: bool = False


def refuse_failed_commits(engine: AsyncEngine) -> None:
    """Make COMMIT of a transaction that PostgreSQL has given up an error, as it should be."""
    sync_engine = engine.sync_engine

    @event.listens_for(sync_engine, "handle_error")
    def failed(failure: ExceptionContext) -> None:
        connection = failure.connection
        error = failure.original_exception
        # Without an SQLSTATE it was the driver that refused: PostgreSQL never heard of it.
        if connection is not None and getattr(error, "sqlstate", None):
            info_of(connection)[_FAILED] = summary_of(failure.statement or "")

    @event.listens_for(sync_engine, "begin")
    @event.listens_for(sync_engine, "rollback")
    def fresh(connection: Connection) -> None:
        info_of(connection).pop(_FAILED, None)

    @event.listens_for(sync_engine, "rollback_savepoint")
    def restored(connection: Connection, _name: str, _context: None) -> None:
        info_of(connection).pop(_FAILED, None)

    @event.listens_for(sync_engine, "commit")
    def refuse(connection: Connection) -> None:
        statement = info_of(connection).pop(_FAILED, None)
        driver = connection.connection.dbapi_connection
        if statement is not None and driver is not None and not driver.autocommit:
            try:
                # SQLAlchemy takes a transaction whose commit failed for ended.
                driver.rollback()
            except Exception:  # noqa: BLE001 - it is lost
                connection.invalidate()
            raise FailedTransactionError(
                f"nothing was committed: {statement} had failed before and the error was passed "
                "over; run such a statement in a savepoint",
                operation="commit",
            )
        mark = connection.get_execution_options().get("glam_commit")
        if mark is not None:
            mark.begun = True


def warn_of_idle_transactions(
    engine: AsyncEngine, service: str, *, threshold_seconds: float
) -> None:
    """Log a transaction that a task keeps open while it waits for something else.

    Each holds a connection of the pool, and what it has locked. The line names the place in the
    code that waits.
    """
    counter = database_idle_transactions_total.labels(service)

    def warn(task: asyncio.Task[object] | None, statement: str) -> None:
        counter.inc()
        _logger.warning(
            "a transaction is open while its task waits for something else",
            extra={
                "seconds": threshold_seconds,
                "last_statement": summary_of(statement),
                "place": "" if task is None else _place_of(task),
            },
        )

    def begin_to_wait(
        connection: Connection, _cursor: object, statement: str, *_rest: object
    ) -> None:
        loop = asyncio.get_running_loop()
        stop(connection)
        info_of(connection)[_TIMER] = loop.call_later(
            threshold_seconds, warn, asyncio.current_task(), statement
        )

    def stop(connection: Connection, *_rest: object) -> None:
        timer: asyncio.TimerHandle | None = info_of(connection).pop(_TIMER, None)
        if timer is not None:
            timer.cancel()

    def closed(_connection: object, record: object, *_rest: object) -> None:
        timer: asyncio.TimerHandle | None = record.info.pop(_TIMER, None)  # type: ignore[attr-defined]
        if timer is not None:
            timer.cancel()

    sync_engine = engine.sync_engine
    event.listen(sync_engine, "after_cursor_execute", begin_to_wait)
    event.listen(sync_engine, "before_cursor_execute", stop)
    event.listen(sync_engine, "commit", stop)
    event.listen(sync_engine, "rollback", stop)
    event.listen(sync_engine, "checkin", closed)  # a connection that was lost is not rolled back
    event.listen(sync_engine, "invalidate", closed)


def _place_of(task: asyncio.Task[object]) -> str:
    """The innermost line of the service's own code that the task waits in."""
    frames: list[FrameType] = []
    waits: object = task.get_coro()
    while waits is not None:
        coroutine: CoroutineType[object, object, object] = waits  # type: ignore[assignment]
        frame = getattr(coroutine, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None:
            frames.append(frame)
        waits = getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None)
    own = [f for f in frames if _is_own(f.f_code.co_filename)] or frames
    if not own:
        return ""
    frame = own[-1]
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"


def _is_own(file: str) -> bool:
    return not ("site-packages" in file or "/lib/python" in file or "/shared/" in file)
