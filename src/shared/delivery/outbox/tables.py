"""The outbox and the inbox: two tables in the schema of every service that has a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.operations import Operations


# Into how many parts the outbox is split among the replicas. It is in an index and in the rows of
# a table, and the same for all who read them: no two replicas can ever disagree about it.
PARTITIONS = 16


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


# Messages of one key share a partition; those without a key are spread by their event id. The hash
# is the one by which PostgreSQL partitions tables, so that it stays the same for ever.
_PARTITION = "((hashtextextended(coalesce(key, event_id), 0) & 15)::int)"

_LEASES = (
    # Whether a message was to wait. Those that do are kept out of the way of those that do not.
    "ALTER TABLE outbox ADD COLUMN IF NOT EXISTS delayed boolean NOT NULL DEFAULT false",
    """\
CREATE TABLE IF NOT EXISTS outbox_leases (
  partition integer PRIMARY KEY,
  outbox text NOT NULL,
  owner text,
  token bigint NOT NULL DEFAULT 0,
  expires_at timestamptz
) WITH (fillfactor = 50)""",
    """\
CREATE TABLE IF NOT EXISTS outbox_relays (
  owner text PRIMARY KEY,
  expires_at timestamptz NOT NULL
) WITH (fillfactor = 50)""",
    """\
WITH outbox AS MATERIALIZED (SELECT replace(gen_random_uuid()::text, '-', '') AS id)
INSERT INTO outbox_leases (partition, outbox)
SELECT number, outbox.id FROM generate_series(0, 15) AS number, outbox
ON CONFLICT DO NOTHING""",
)

# What is read of a table of any size: the messages to send, by partition, and nothing else.
_DUE_INDEXES = {
    "ix_outbox_due": f"""\
ON outbox ({_PARTITION}, id) WHERE published_at IS NULL AND attempts = 0 AND NOT delayed""",
    "ix_outbox_delayed": f"""\
ON outbox ({_PARTITION}, available_at, id)
WHERE published_at IS NULL AND attempts = 0 AND delayed""",
    "ix_outbox_failing": f"""\
ON outbox ({_PARTITION}, id) WHERE published_at IS NULL AND attempts > 0""",
}


def create_outbox_leases(op: Operations | Any) -> None:
    """Split the outbox into partitions that replicas lease; for a service that has the tables.

    The indexes of an outbox with rows in it are built concurrently: the service goes on writing
    meanwhile. A revision that was interrupted may be run again.

    Args:
        op: ``alembic.op``.
    """
    for statement in _LEASES:
        op.execute(statement)
    # Written as SQL, nobody knows which outbox it will be run on: the way for one with rows.
    if (
        op.get_context().as_sql
        or op.get_bind().exec_driver_sql("SELECT EXISTS (SELECT FROM outbox)").scalar()
    ):
        with op.get_context().autocommit_block():
            for name, index in _DUE_INDEXES.items():
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
                op.execute(f"CREATE INDEX CONCURRENTLY {name} {index}")
            op.execute("DROP INDEX CONCURRENTLY IF EXISTS ix_outbox_unpublished")
    else:
        for name, index in _DUE_INDEXES.items():
            op.execute(f"CREATE INDEX {name} {index}")
        op.execute("DROP INDEX ix_outbox_unpublished")


def drop_outbox_leases(op: Operations | Any) -> None:
    """Go back to one relay at a time for the whole outbox. What waits in it stays.

    Args:
        op: ``alembic.op``.
    """
    op.execute("CREATE INDEX ix_outbox_unpublished ON outbox (id) WHERE published_at IS NULL")
    for name in _DUE_INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.execute("DROP TABLE outbox_relays")
    op.execute("DROP TABLE outbox_leases")
    op.execute("ALTER TABLE outbox DROP COLUMN delayed")
