"""What a transaction adds to the outbox: kept in memory, written by one statement at its commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakSet

from sqlalchemy import event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session, SessionTransaction


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


def insert(connection: Connection, messages: Sequence[BufferedMessage], *, notify: bool) -> None:
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
            insert(self.committing.connection(), self.take(), notify=self.notify)

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
                insert(session.connection(), buffer.take(), notify=buffer.notify)

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
