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

__all__ = ["Buffer", "BufferedMessage", "insert"]

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
    columns = tuple(list(column) for column in zip(*messages, strict=True))
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
        self._messages: list[BufferedMessage] = []
        # How many there were when a savepoint began; None once the savepoint is released.
        self._before: dict[SessionTransaction, int | None] = {}
        self._committing: Session | None = None

    def __len__(self) -> int:
        return len(self._messages)

    def follow(self, session: Session) -> None:
        """Be written with the session's transaction, before which nothing was executed."""
        _follow(type(session))
        session.info[_KEY] = self

    def append(self, message: BufferedMessage) -> None:
        """Add one; while the transaction commits it is written at once."""
        self._messages.append(message)
        if self._committing is not None:
            insert(self._committing.connection(), self.take(), notify=self.notify)

    def take(self) -> list[BufferedMessage]:
        """Return all of them, and forget them."""
        messages, self._messages = self._messages, []
        return messages

    def began(self, transaction: SessionTransaction) -> None:
        """A transaction or a savepoint began."""
        if transaction.nested:
            self._before[transaction] = len(self._messages)

    def commits(self, session: Session) -> None:
        """The transaction is about to commit, or a savepoint to be released."""
        if not session.in_nested_transaction():
            session.flush()  # what listens to it may add messages
            self._committing = session
            if self._messages:
                insert(session.connection(), self.take(), notify=self.notify)

    def released(self, savepoint: SessionTransaction) -> None:
        """The savepoint's messages are those of what is around it."""
        self._before[savepoint] = None

    def ended(self, transaction: SessionTransaction) -> None:
        """A transaction or a savepoint ended, one way or another."""
        if transaction.nested:
            before = self._before.pop(transaction, None)
            if before is not None:
                del self._messages[before:]
        elif transaction.parent is None:
            self._messages.clear()
            self._before.clear()
            self._committing = None


def _follow(kind: type[Session]) -> None:
    if kind in _followed:
        return
    _followed.add(kind)

    @event.listens_for(kind, "after_transaction_create")
    def began(session: Session, transaction: SessionTransaction) -> None:
        if (buffer := session.info.get(_KEY)) is not None:
            buffer.began(transaction)

    @event.listens_for(kind, "before_commit")
    def commits(session: Session) -> None:
        if (buffer := session.info.get(_KEY)) is not None:
            buffer.commits(session)

    @event.listens_for(kind, "after_commit")
    def committed(session: Session) -> None:
        savepoint = session.get_nested_transaction()
        if savepoint is not None and (buffer := session.info.get(_KEY)) is not None:
            buffer.released(savepoint)

    @event.listens_for(kind, "after_transaction_end")
    def ended(session: Session, transaction: SessionTransaction) -> None:
        if (buffer := session.info.get(_KEY)) is not None:
            buffer.ended(transaction)
