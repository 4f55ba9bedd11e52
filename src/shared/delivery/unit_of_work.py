"""The unit of work: rows and messages of one decision, committed together."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from shared.database import Base, Repository, bind_session, translate_errors
from shared.database.engine.transactions import CommitMark
from shared.database.engine.translation import translated
from shared.delivery.outbox.commit import Buffer, GroupCommit
from shared.delivery.outbox.outbox import Outbox
from shared.errors import DatabaseError
from shared.metrics import database_transaction_retries_total
from shared.resilience import backoff_seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection
    from types import TracebackType
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from shared.database import Database, Isolation
    from shared.events import Contract


_logger = logging.getLogger(__name__)

M = TypeVar("M", bound=Base)
R = TypeVar("R")

# SQLSTATE, PostgreSQL manual appendix A and section 13.5: the very same may succeed right away.
_CONFLICTS = frozenset({"40001", "40P01"})  # serialization failure, deadlock detected
_FIRST_PAUSE_SECONDS = 0.04
_LONGEST_PAUSE_SECONDS = 1.0
_COMMIT_GRACE_SECONDS = 5.0

_HAS_WRITTEN = text("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")


class CommitInDoubtError(DatabaseError):
    """The connection was lost while PostgreSQL committed: nobody can say whether it did.

    What may be done twice (a message's handler, whose inbox row tells; a request with an
    Idempotency-Key) is done again; what may not has to look first.
    """

    code = "COMMIT_IN_DOUBT"


class UnitOfWork:
    """One transaction: ``async with`` commits it, or rolls it back on an error or cancellation.

    No session is made before it is asked for, and no connection is taken before the first
    statement. Repositories used in the block by the same task join it. It serves once and belongs
    to the task that entered it.

    A task that is cancelled while the commit runs waits for its end, five seconds at most, and is
    cancelled then: ``committed`` says what became of it.

    >>> async with UnitOfWork(database, service="shop-service") as uow:
    ...     order = Order(number="1001", status="paid", total=Money(5, "EUR"))
    ...     _ = await uow.repository(Order).save(order)
    ...     _ = uow.outbox.add(PAID, Paid(number=order.number), key=order.number)
    >>> uow.committed
    True

    Args:
        database: where.
        service: the service, named as source of its messages.
        publishes: contracts the service has declared; None allows any.
        on_commit: called after a commit that holds messages; wakes the relay of this process.
        notify: wake relays of other processes with NOTIFY. Off, they find the messages when they
            next poll. (A commit with a NOTIFY takes a lock that is global to the PostgreSQL server;
            thousands of such commits a second queue up behind it.)
        read_only: PostgreSQL refuses writes, and a standby may answer: see `Database.session`.
        isolation: ``read committed``, ``repeatable read`` or ``serializable``. The latter two end
            in serialization failures now and then: let `UnitOfWorkFactory.run` try again.
        replica: False reads from the primary even where ``read_only``.

    Raises (on leaving the block):
        ConflictError, ValidationError, DatabaseError: as `shared.database.translate_errors`.
        FailedTransactionError: a statement had failed and its error was passed over.
        CommitInDoubtError: the connection was lost in the commit.
    """

    def __init__(
        self,
        database: Database,
        *,
        service: str,
        publishes: Collection[Contract[Any]] | None = None,
        on_commit: Callable[[], None] | None = None,
        notify: bool = True,
        read_only: bool = False,
        isolation: Isolation | None = None,
        replica: bool = True,
    ) -> None:
        self._database = database
        self._service = service
        self._publishes = publishes
        self._on_commit = on_commit
        self._read_only = read_only
        self._isolation = isolation
        self._replica = replica
        self._session: AsyncSession | None = None
        self._outbox: Outbox | None = None  # while it is open
        self._notify = notify
        self._buffer = Buffer(notify=notify)
        self._binding = bind_session(lambda: self.session)
        self._mark = CommitMark()
        self._committed: bool | None = False

    @property
    def committed(self) -> bool | None:
        """Whether it is committed; None when the connection was lost in the commit."""
        return self._committed

    @property
    def session(self) -> AsyncSession:
        """The session of the transaction. It is committed by leaving the block, not by the user.

        Raises:
            RuntimeError: outside of the block.
        """
        if self._outbox is None:
            raise RuntimeError("the unit of work is not open: use it inside `async with`")
        if self._session is None:
            self._session = self._begin_session()
        return self._session

    def _begin_session(self) -> AsyncSession:
        session = self._database.session(
            read_only=self._read_only,
            isolation=self._isolation,
            replica=self._replica,
            mark=self._mark,
        )
        self._buffer.follow(session.sync_session)
        return session

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
        """Return a repository that works in this transaction; for one tenant only, if named."""
        return Repository(
            model,
            self._database.session_factory,
            session=self.session,
            merchant_id=merchant_id,
        )

    @property
    def read_only(self) -> bool:
        """Whether PostgreSQL refuses its writes."""
        return self._read_only

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo what the block did, messages included, when it raises; the rest is kept.

        Rows that the block had changed have to be read again afterwards.

        >>> order = Order(number="1001", total=Money(5, "EUR"))
        >>> async with units() as uow:
        ...     _ = await uow.repository(Order).save(order)
        ...     try:
        ...         async with uow.savepoint():
        ...             await uow.repository(Order).insert_many([order])
        ...     except ConflictError:
        ...         uow.outbox.used
        False

        Raises:
            ConflictError, ValidationError, DatabaseError: the block's, as on leaving the unit of
                work; catch them outside of the savepoint.
        """
        with translate_errors():
            async with self.session.begin_nested():
                yield

    async def release(self) -> None:
        """Give the connection back in the middle: before waiting for something else.

        The transaction ends here and another begins at the next statement, so what was read may
        have changed by then. Rows that were read stay usable.

        Raises:
            RuntimeError: something was written, added to the outbox or locked, or a savepoint is
                open. Whether that commits is decided at the end.
        """
        session = self.session
        pending = session.new or session.dirty or session.deleted or self.outbox.used
        if session.in_nested_transaction():
            raise RuntimeError("a savepoint is open: release() comes before it or after it")
        with translate_errors("release"):
            if not pending and session.in_transaction() and not self._read_only:
                pending = bool(await session.scalar(_HAS_WRITTEN))
            if pending:
                raise RuntimeError(
                    "this unit of work has written: wait before it begins, or after it ended"
                )
            await session.commit()
        self._mark.begun = False

    async def __aenter__(self) -> Self:
        if self._outbox is not None:
            raise RuntimeError("the unit of work is open already")
        self._committed = False
        self._mark = CommitMark()
        if self._isolation is not None:
            self._session = self._begin_session()  # says at once which there are
        self._outbox = Outbox(self._buffer, service=self._service, publishes=self._publishes)
        self._binding.__enter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        session, outbox = self._session, self.outbox
        self._session = self._outbox = None
        self._binding.__exit__()
        if error is not None:
            self._buffer.take()
            if session is not None:
                await _roll_back(session, error)
            ours = translated(error)
            if ours is not None:
                raise ours from error
            return
        await self._commit(session)
        if outbox.used and self._on_commit is not None:
            self._on_commit()

    async def _commit(self, session: AsyncSession | None) -> None:
        """Commit to the end, whatever becomes of this task meanwhile.

        Cancelled half way, COMMIT may have taken effect or not, and nobody would know.
        """
        commit = self._begin_commit(session)
        if commit is None:
            self._committed = True
            return
        try:
            await asyncio.shield(commit)
        except asyncio.CancelledError:
            await _ended(commit, _COMMIT_GRACE_SECONDS)
            if not commit.done():
                self._committed = None
                commit.cancel()
            elif commit.cancelled() or commit.exception() is not None:
                self._committed = None if self._mark.begun else False
            else:
                self._committed = True
                if self._on_commit is not None:
                    self._on_commit()
            if self._committed is None:
                _logger.warning("cancelled in a commit whose end is not known")
            raise
        except Exception as error:
            if self._mark.begun and _is_silent(error):
                self._committed = None
                raise CommitInDoubtError(
                    "the connection was lost in the commit: it may have succeeded",
                    operation="commit",
                    retryable=True,
                ) from error
            with translate_errors("commit"):
                raise
        self._committed = True

    def _begin_commit(self, session: AsyncSession | None) -> asyncio.Future[None] | None:
        """Begin to commit: messages alone by the autocommit path; None if there is nothing."""
        if session is not None and not session.in_transaction():
            session.sync_session.close()  # it holds no connection
            session = None
        if session is None:
            if not self._buffer.messages:
                return None
            plain = not self._read_only and self._isolation is None
            engine = self._database.autocommit_engine() if plain else None
            if engine is not None:
                return GroupCommit.of(engine).commit(
                    engine, self._buffer.take(), self._mark, notify=self._notify
                )
            session = self._begin_session()
        return asyncio.ensure_future(_commit_session(session))


async def _commit_session(session: AsyncSession) -> None:
    async with session:
        await session.commit()


async def _roll_back(session: AsyncSession, error: BaseException) -> None:
    """Leave the session: that rolls back and gives the connection back, even when cancelled."""
    try:
        await session.__aexit__(type(error), error, error.__traceback__)
    except Exception as failure:  # noqa: BLE001 - the connection is lost: all is undone
        _logger.warning("rollback failed: %s", failure)


async def _ended(task: asyncio.Future[None], seconds: float) -> None:
    """Wait for the task, however often we are cancelled."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not task.done() and loop.time() < deadline:
        with suppress(asyncio.CancelledError):
            await asyncio.wait({task}, timeout=deadline - loop.time())


def _is_silent(error: BaseException) -> bool:
    """Whether PostgreSQL did not say that it rolled back.

    An SQLSTATE says so, but for those of a session that was ended (class 57): with synchronous
    replication the commit may have been done by then.
    """
    if not isinstance(error, SQLAlchemyError | OSError):
        return False
    state: str | None = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state is None or state[:2] in {"08", "57", "58"}


async def run_unit_of_work(
    make: Callable[[], AbstractAsyncContextManager[UnitOfWork]],
    work: Callable[[UnitOfWork], Awaitable[R]],
    *,
    attempts: int = 5,
    service: str = "",
) -> R:
    """Do the work in a unit of work, and all of it again when PostgreSQL had to end it.

    That is after a serialization failure or a deadlock, which say nothing against the work itself;
    with a unit that only reads, after a lost connection too. Every attempt has a new unit of work.
    The pause before each is random and grows, 20 ms at first and a second at most.

    Args:
        make: makes a unit of work.
        work: what to do; it may run several times, so its effects belong into the unit of work.
        attempts: how often at most.
        service: label of the counter.

    Raises:
        Exception: what the work raises, or the last attempt's failure.
    """
    if attempts < 1:
        raise ValueError(f"attempts is {attempts}: it must be 1 or more")
    attempt = 0
    while True:
        attempt += 1
        unit = make()
        try:
            async with unit as uow:
                return await work(uow)
        except Exception as error:
            if attempt >= attempts or not _may_try_again(error, unit):
                raise
            _logger.info(
                "transaction is tried again", extra={"attempt": attempt, "why": str(error)}
            )
        database_transaction_retries_total.labels(service).inc()
        pause = backoff_seconds(
            attempt, first=_FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS, spread=(0.0, 1.0)
        )
        await asyncio.sleep(pause)


def _may_try_again(error: BaseException, unit: object) -> bool:
    if isinstance(unit, UnitOfWork) and unit.read_only and isinstance(error, DatabaseError):
        return error.retryable
    cause: BaseException | None = error
    while cause is not None:
        state = getattr(cause, "error_code", None) or getattr(cause, "sqlstate", None)
        if state in _CONFLICTS:
            return True
        cause = cause.__cause__
    return False


class UnitOfWorkFactory:
    """Makes the units of work of one service; called, it makes one. Arguments as `UnitOfWork`.

    >>> units = UnitOfWorkFactory(database, service="shop-service")
    >>> async with units(read_only=True) as uow:
    ...     await uow.repository(Order).count()
    0
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
        self._service = service
        self._make = partial(
            UnitOfWork,
            database,
            service=service,
            publishes=publishes,
            on_commit=on_commit,
            notify=notify,
        )

    def __call__(
        self,
        *,
        read_only: bool = False,
        isolation: Isolation | None = None,
        replica: bool = True,
    ) -> UnitOfWork:
        """Make a unit of work, not yet open."""
        return self._make(read_only=read_only, isolation=isolation, replica=replica)

    async def run(
        self,
        work: Callable[[UnitOfWork], Awaitable[R]],
        *,
        isolation: Isolation | None = None,
        read_only: bool = False,
        replica: bool = True,
        attempts: int = 5,
    ) -> R:
        """Do the work in a unit of work and commit it; again, as a whole, after a conflict.

        See `run_unit_of_work` for what is tried again.

        >>> async def pay(uow: UnitOfWork) -> str:
        ...     (order,) = await uow.repository(Order).insert_many(
        ...         [{"number": "1001", "status": "paid", "total": Money(5, "EUR")}]
        ...     )
        ...     return order.status
        >>> await units.run(pay, isolation="serializable")
        'paid'
        """
        return await run_unit_of_work(
            lambda: self(read_only=read_only, isolation=isolation, replica=replica),
            work,
            attempts=attempts,
            service=self._service,
        )
