"""How what was added gets into a commit: by one statement, in a transaction or as one.

The `Buffer` of a unit of work keeps its messages in memory and writes them just before its
transaction commits. Events alone need no transaction: `GroupCommit` commits them by one statement
for all that come while another runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

import asyncpg
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection, Engine
    from sqlalchemy.orm import Session, SessionTransaction

    from shared.database.engine.transactions import CommitMark

__all__ = ["Buffer", "BufferedMessage", "GroupCommit"]

_MESSAGES = 500  # of one statement, or those of one commit

# Classes of SQLSTATE: data exception, constraint violation, program limit exceeded, and what a
# trigger raises.
_REFUSALS = frozenset({"22", "23", "54", "P0"})

# A statement that stands still (its connection may be dead) does not hold up those behind it.
_HOLD_SECONDS = 0.05

# One statement for any number of messages, so that PostgreSQL parses and plans it once. Ids are
# given in the order of the arrays. NOTIFY in the same statement spares a round trip; it is sent
# when, and only when, the transaction commits.
_INSERT = """\
INSERT INTO outbox
  (event_id, subject, key, message_id, headers, body, created_at, available_at, delayed)
SELECT event_id, subject, key, message_id, headers::jsonb, body, created_at,
  now() + coalesce(delay, interval '0'), delay IS NOT NULL
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[],
  $7::timestamptz[], $8::interval[]) WITH ORDINALITY
  AS added (event_id, subject, key, message_id, headers, body, created_at, delay, number)
ORDER BY number"""
_INSERT_AND_NOTIFY = f"""\
WITH added AS ({_INSERT})
SELECT pg_notify('glam_outbox_' || current_schema(), '')"""

_KEY = "glam.outbox"

# Kinds of sessions whose transactions we follow. Listening to the kind, once, costs a session that
# adds nothing a look into a dictionary; listening to each session would cost more than its insert.
_followed: WeakSet[type[Session]] = WeakSet()


class BufferedMessage(NamedTuple):
    """A message that is to be in the outbox, in the order of the statement's columns."""

    event_id: str
    subject: str
    key: str | None
    message_id: str
    headers: str
    body: bytes
    created_at: datetime
    delay: timedelta | None


def _insert(connection: Connection, messages: Sequence[BufferedMessage], *, notify: bool) -> None:
    """Write the messages into the outbox, with NOTIFY if wanted."""
    columns = tuple(map(list, zip(*messages, strict=True)))
    connection.exec_driver_sql(_INSERT_AND_NOTIFY if notify else _INSERT, columns)


class Buffer:
    """The messages of one unit of work, before they are written.

    Those added inside a savepoint that is rolled back are dropped, all are when the transaction
    is. The rest is written when the transaction is about to commit, after the session's own flush.

    Args:
        notify: wake relays in other processes with NOTIFY at the commit.
    """

    def __init__(self, *, notify: bool = True) -> None:
        self.notify = notify
        self.messages: list[BufferedMessage] = []
        # How many there were when a savepoint began; None once the savepoint is released.
        self.before: dict[SessionTransaction, int | None] = {}
        self.committing: Session | None = None

    def follow(self, session: Session) -> None:
        """Be written with the session's transaction, before which nothing was executed."""
        session.info[_KEY] = self
        kind = type(session)
        if kind not in _followed:
            _followed.add(kind)
            event.listen(kind, "after_transaction_create", self._began)
            event.listen(kind, "before_commit", self._commits)
            event.listen(kind, "after_commit", self._released)
            event.listen(kind, "after_transaction_end", self._ended)

    def append(self, message: BufferedMessage) -> None:
        """Add one; while the transaction commits it is written at once."""
        self.messages.append(message)
        if self.committing is not None:
            _insert(self.committing.connection(), self.take(), notify=self.notify)

    def take(self) -> list[BufferedMessage]:
        """Return all of them, and forget them."""
        messages, self.messages = self.messages, []
        return messages

    # The listeners are those of a kind of sessions: whose buffer is meant, the session knows.

    @staticmethod
    def _began(session: Session, transaction: SessionTransaction) -> None:
        buffer: Buffer | None = session.info.get(_KEY)
        if buffer is not None and transaction.nested:
            buffer.before[transaction] = len(buffer.messages)

    @staticmethod
    def _commits(session: Session) -> None:
        buffer: Buffer | None = session.info.get(_KEY)
        # The release of a savepoint is called a commit as well.
        if buffer is not None and not session.in_nested_transaction():
            session.flush()  # what listens to it may add messages
            buffer.committing = session
            if buffer.messages:
                _insert(session.connection(), buffer.take(), notify=buffer.notify)

    @staticmethod
    def _released(session: Session) -> None:
        buffer: Buffer | None = session.info.get(_KEY)
        savepoint = session.get_nested_transaction()
        if buffer is not None and savepoint is not None:
            buffer.before[savepoint] = None  # its messages are those of what is around it

    @staticmethod
    def _ended(session: Session, transaction: SessionTransaction) -> None:
        buffer: Buffer | None = session.info.get(_KEY)
        if buffer is None:
            return
        if transaction.nested:
            before = buffer.before.pop(transaction, None)
            if before is not None:
                del buffer.messages[before:]
        elif transaction.parent is None:
            buffer.messages.clear()
            buffer.before.clear()
            buffer.committing = None


@dataclass(slots=True, eq=False)
class _Commit:
    engine: Engine
    messages: list[BufferedMessage]
    notify: bool
    mark: CommitMark
    done: asyncio.Future[None]
    context: Context = field(default_factory=copy_context)  # of its trace


class GroupCommit:
    """Commits messages of one engine, those of several tasks by one statement.

    A unit of work that only adds events needs no transaction of its own, so those of a process that
    end at the same time share one. Alone, one waits for nobody. What none of the others may notice:
    that the statement fails for the messages of one. PostgreSQL has undone it then, and each is
    written by itself.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Commit] = deque()
        self._writing: set[asyncio.Task[None]] = set()
        self._hold_until = 0.0

    @staticmethod
    def of(engine: Engine) -> GroupCommit:
        """Return that of the engine."""
        found = _of_engine.get(engine)
        if found is None:
            found = _of_engine[engine] = GroupCommit()
        return found

    def commit(
        self, engine: Engine, messages: list[BufferedMessage], mark: CommitMark, *, notify: bool
    ) -> asyncio.Future[None]:
        """Commit the messages; the future is done then. One that is cancelled before is left out.

        Args:
            engine: its statements commit by themselves.
            messages: of one unit of work.
            mark: is told when the statement is sent.
            notify: whether relays elsewhere are to be woken.
        """
        loop = asyncio.get_running_loop()
        commit = _Commit(engine, messages, notify, mark, loop.create_future())
        self._waiting.append(commit)
        if not self._writing or loop.time() >= self._hold_until:
            # Soon: what other tasks commit in this turn of the loop goes along.
            loop.call_soon(self._write_next)
        return commit.done

    def _write_next(self) -> None:
        commits: list[_Commit] = []
        room = _MESSAGES
        while self._waiting and (not commits or len(self._waiting[0].messages) <= room):
            commit = self._waiting.popleft()
            if not commit.done.done():
                commits.append(commit)
                room -= len(commit.messages)
        if commits:
            self._start(commits)

    def _start(self, commits: Sequence[_Commit]) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._write(commits), context=commits[0].context)
        self._writing.add(task)
        self._hold_until = loop.time() + _HOLD_SECONDS
        overtaken = loop.call_at(self._hold_until, self._write_next)

        def ended(_: object) -> None:
            overtaken.cancel()
            self._writing.discard(task)
            self._write_next()

        task.add_done_callback(ended)

    async def _write(self, commits: Sequence[_Commit]) -> None:
        failure: Exception | None = None
        try:
            await greenlet_spawn(self._insert_all, commits)
        except Exception as error:  # noqa: BLE001 - it is theirs
            if len(commits) > 1 and _is_of_one(error):
                for commit in commits:
                    commit.mark.begun = False
                    self._start([commit])
                return
            failure = error
        except BaseException:
            for commit in commits:
                commit.done.cancel()
            raise
        for commit in commits:
            if commit.done.done():  # its task was cancelled, and waits no longer
                continue
            if failure is None:
                commit.done.set_result(None)
            else:
                commit.done.set_exception(failure)

    def _insert_all(self, commits: Sequence[_Commit]) -> None:
        with commits[0].engine.connect() as connection:
            messages: list[BufferedMessage] = []
            notify = False
            for commit in commits:
                commit.mark.begun = True
                messages += commit.messages
                notify = notify or commit.notify
            _insert(connection, messages, notify=notify)


_of_engine: WeakKeyDictionary[Engine, GroupCommit] = WeakKeyDictionary()


def _is_of_one(error: Exception) -> bool:
    """Whether a message was refused, by PostgreSQL, which undid the statement, or by the driver.

    Otherwise it is nobody's fault, and would be the same for each by itself.
    """
    if not isinstance(error, DBAPIError) or error.connection_invalidated:
        return False
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is None:
        return isinstance(getattr(error.orig, "__cause__", None), asyncpg.DataError)
    return state[:2] in _REFUSALS
