"""What is watched in every transaction of an engine, by one set of listeners.

- Session setup: before the first statement, PostgreSQL is told whose transaction it is (and, behind
  a pooler, what elsewhere sessions keep).
- COMMIT of a transaction that PostgreSQL has given up is an error, as it should be.
- A transaction that a task keeps open while it waits for something else is logged.
- A statement that takes too long is handed to the log of slow statements.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import event, text

from shared.database.engine.first_statement import BatchingConnection, send_with_begin
from shared.database.engine.statements import INTERNAL, is_internal, summary_of
from shared.database.tenancy.scopes import TenantMismatchError, canonical, current_tenant
from shared.errors import DatabaseError
from shared.metrics import database_idle_transactions_total

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import CoroutineType, FrameType

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext, ExecutionContext
    from sqlalchemy.pool import ConnectionPoolEntry

    from shared.database.engine.slow_queries import SlowQueries


_logger = logging.getLogger(__name__)

_KEY = "glam.transaction"  # in `Connection.info`
_TELL = text("SELECT set_config('glam.merchant_id', :merchant, true)").execution_options(**INTERNAL)


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


@dataclass(slots=True)
class _Transaction:
    """What is known of the transaction that a connection is in."""

    settings_told: bool = False
    tenant: str | None = None
    """The one that PostgreSQL was told."""
    tenant_certain: bool = True
    """False after a savepoint was rolled back: PostgreSQL may have gone back to what it was."""
    failed: str | None = None
    """The statement after which PostgreSQL has given it up."""
    idle: asyncio.TimerHandle | None = None

    def stop_timer(self) -> None:
        if self.idle is not None:
            self.idle.cancel()
            self.idle = None


def _transaction_of(connection: Connection) -> _Transaction:
    # Asking a lost connection for its `info` would try to connect again, in the middle of a
    # rollback: of one that is lost nothing is known.
    if connection.closed or connection.invalidated:
        return _Transaction()
    found: _Transaction = connection.info.setdefault(_KEY, _Transaction())
    return found


def tell_tenant(connection: Connection, transaction: _Transaction | None = None) -> None:
    """Tell PostgreSQL the tenant of this task now, if there is one and it does not know.

    A transaction works for one tenant; one that began without may still find its own.

    Raises:
        TenantMismatchError: the transaction works for another tenant.
    """
    transaction = transaction or _transaction_of(connection)
    tenant, told = current_tenant(), transaction.tenant
    if told is None:
        if tenant is None:
            return
        tenant = canonical(tenant)
    else:
        if tenant is not None and canonical(tenant) != told:
            raise TenantMismatchError(
                "this transaction works for another tenant: open a unit of work for each",
                bound=told,
                wanted=tenant,
            )
        if transaction.tenant_certain:
            return
        tenant = told
    # Set first: the statement below comes here again.
    transaction.tenant, transaction.tenant_certain = tenant, True
    try:
        connection.execute(_TELL, {"merchant": tenant})
    except BaseException:
        transaction.tenant = None
        raise


class TransactionWatcher:
    """Listens to the transactions of engines.

    What it tells PostgreSQL holds for every statement: of sessions, of Core and written by hand.

    Args:
        service: label of the counter.
        settings: what each transaction is told: ``search_path`` and the timeouts, where a pooler
            lets no session keep them.
        idle_warning_seconds: from when on a transaction that waits is logged; 0 for never.
        slow_queries: is told of statements that took too long.
    """

    def __init__(
        self,
        service: str,
        *,
        settings: Mapping[str, str],
        idle_warning_seconds: float,
        slow_queries: SlowQueries,
    ) -> None:
        self._settings = dict(settings)
        calls = ", ".join(f"set_config('{name}', :{name}, true)" for name in settings)
        self._tell_settings = text(f"SELECT {calls}").execution_options(**INTERNAL)
        self._idle_warning_seconds = idle_warning_seconds
        self._idle_transactions = database_idle_transactions_total.labels(service)
        self._slow_queries = slow_queries

    def watch(self, engine: Engine) -> None:
        """Listen to an engine, before it is used."""
        event.listen(engine, "begin", self._begun)
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "do_execute", send_with_begin)
        event.listen(engine, "after_cursor_execute", self._after)
        event.listen(engine, "handle_error", self._failed)
        event.listen(engine, "rollback_savepoint", self._savepoint_rolled_back)
        event.listen(engine, "commit", self._commits)
        event.listen(engine, "rollback", self._rolled_back)
        event.listen(engine, "checkin", self._returned)
        event.listen(engine, "invalidate", self._returned)
        if self._settings:
            event.listen(engine, "savepoint", self._savepoint)

    @staticmethod
    def _begun(connection: Connection) -> None:
        if connection.closed or connection.invalidated:
            return
        connection.info[_KEY] = _Transaction()
        # What an earlier user of the connection did not come to send is not for this one.
        driver = connection.connection.driver_connection
        if isinstance(driver, BatchingConnection):
            driver.with_begin = None

    def _before(
        self,
        connection: Connection,
        _cursor: object,
        statement: str,
        _parameters: object,
        context: ExecutionContext,
        _many: bool,
    ) -> None:
        transaction = _transaction_of(connection)
        if self._settings and not transaction.settings_told:
            self._setup(connection, transaction)
        # Told before it, the tenant would be undone by it, and a failed transaction hears nothing.
        if not statement.startswith("ROLLBACK TO "):
            tell_tenant(connection, transaction)
        transaction.stop_timer()
        context._glam_started = time.perf_counter()  # type: ignore[attr-defined] # noqa: SLF001

    def _setup(self, connection: Connection, transaction: _Transaction) -> None:
        transaction.settings_told = True
        connection.execute(self._tell_settings, self._settings)

    def _after(
        self,
        connection: Connection,
        _cursor: object,
        statement: str,
        parameters: object,
        context: ExecutionContext,
        many: bool,
    ) -> None:
        seconds = time.perf_counter() - context._glam_started  # type: ignore[attr-defined] # noqa: SLF001
        if seconds >= self._slow_queries.threshold_seconds and not is_internal(context):
            self._slow_queries.record(statement, None if many else parameters, seconds)
        if self._idle_warning_seconds:
            transaction = _transaction_of(connection)
            transaction.stop_timer()
            transaction.idle = asyncio.get_running_loop().call_later(
                self._idle_warning_seconds, self._warn, asyncio.current_task(), statement
            )

    def _warn(self, task: asyncio.Task[object] | None, statement: str) -> None:
        self._idle_transactions.inc()
        _logger.warning(
            "a transaction is open while its task waits for something else",
            extra={
                "seconds": self._idle_warning_seconds,
                "last_statement": summary_of(statement),
                "place": "" if task is None else _place_of(task),
            },
        )

    @staticmethod
    def _failed(failure: ExceptionContext) -> None:
        # Without an SQLSTATE it was the driver that refused: PostgreSQL never heard of it.
        if failure.connection is not None and getattr(failure.original_exception, "sqlstate", None):
            _transaction_of(failure.connection).failed = summary_of(failure.statement or "")

    def _savepoint(self, connection: Connection, _name: str) -> None:
        # No first statement, so the settings are told before it and outlive its rollback.
        transaction = _transaction_of(connection)
        if not transaction.settings_told:
            self._setup(connection, transaction)

    @staticmethod
    def _savepoint_rolled_back(connection: Connection, _name: str, _context: None) -> None:
        transaction = _transaction_of(connection)
        transaction.failed = None
        transaction.tenant_certain = False

    @staticmethod
    def _commits(connection: Connection) -> None:
        transaction = _transaction_of(connection)
        transaction.stop_timer()
        statement, transaction.failed = transaction.failed, None
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

    @staticmethod
    def _rolled_back(connection: Connection) -> None:
        transaction = _transaction_of(connection)
        transaction.failed = None
        transaction.stop_timer()

    @staticmethod
    def _returned(_connection: object, record: ConnectionPoolEntry, *_rest: object) -> None:
        # A connection that was lost is not rolled back.
        transaction: _Transaction | None = record.info.get(_KEY)
        if transaction is not None:
            transaction.stop_timer()


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
