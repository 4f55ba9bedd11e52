"""The outbox and the inbox: two tables in the schema of every service that has a database."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, DateTime, FetchedValue, Identity, LargeBinary
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

if TYPE_CHECKING:
    from alembic.operations import Operations

__all__ = ["InboxRow", "OutboxRow", "create_delivery_tables", "drop_delivery_tables"]


class DeliveryBase(DeclarativeBase):
    """Metadata apart from the models of services: their migrations do not compare these tables."""


class OutboxRow(DeliveryBase):
    """A message that is published after the transaction which wrote it has committed."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    event_id: Mapped[str]
    subject: Mapped[str]
    key: Mapped[str | None] = mapped_column(doc="messages of one key are published in order")
    message_id: Mapped[str] = mapped_column(doc="Nats-Msg-Id: the stream takes it once")
    headers: Mapped[dict[str, str]] = mapped_column(JSONB)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    available_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), FetchedValue())
    published_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    stream_sequence: Mapped[int | None] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(FetchedValue())
    last_error: Mapped[str | None]


class InboxRow(DeliveryBase):
    """A message that a subscriber has handled."""

    __tablename__ = "inbox"

    subscriber: Mapped[str] = mapped_column(primary_key=True)
    message_id: Mapped[str] = mapped_column(primary_key=True)
    handled_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), FetchedValue())


# Revisions of services call this for ever, so what it makes is written out here and never changes;
# a later change of the tables is another function, for another revision.
_CREATE = (
    """\
CREATE TABLE outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  event_id text NOT NULL,
  subject text NOT NULL,
  key text,
  message_id text NOT NULL,
  headers jsonb NOT NULL,
  body bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  available_at timestamptz NOT NULL DEFAULT now(),
  published_at timestamptz,
  stream_sequence bigint,
  attempts integer NOT NULL DEFAULT 0,
  last_error text
) WITH (
  -- Every row is updated once and deleted once. A share of the table would let it bloat until
  -- vacuum never catches up; a number of rows does not.
  autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_threshold = 5000,
  autovacuum_analyze_scale_factor = 0,
  autovacuum_analyze_threshold = 5000
)""",
    # The table is read through these two only: a week of published rows costs the relay nothing.
    "CREATE INDEX ix_outbox_unpublished ON outbox (id) WHERE published_at IS NULL",
    "CREATE INDEX ix_outbox_failed ON outbox (key, id) WHERE published_at IS NULL AND attempts > 0",
    """\
CREATE TABLE inbox (
  subscriber text NOT NULL,
  message_id text NOT NULL,
  handled_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (subscriber, message_id)
)""",
    "CREATE INDEX ix_inbox_handled_at ON inbox (handled_at)",
)


def create_delivery_tables(op: Operations | Any) -> None:
    """Create outbox and inbox; for the first revision of a service.

    Args:
        op: ``alembic.op``.
    """
    for statement in _CREATE:
        op.execute(statement)


def drop_delivery_tables(op: Operations | Any) -> None:
    """Drop outbox and inbox with everything in them.

    Args:
        op: ``alembic.op``.
    """
    op.execute("DROP TABLE inbox")
    op.execute("DROP TABLE outbox")
