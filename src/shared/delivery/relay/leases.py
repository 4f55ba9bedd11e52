"""Leases: which replica sends which part of the outbox, and what it may write there.

The clock is the database's alone. A lease has a token that grows whenever it changes hands; it
starts from the time, so that it grows even when the tables are restored from an older backup.
"""

from __future__ import annotations

import os
import socket
from contextlib import asynccontextmanager
from operator import attrgetter
from secrets import token_hex
from typing import TYPE_CHECKING

import asyncpg
from pydantic_core import from_json

from shared.database.engine.translation import translated
from shared.delivery.outbox.status import BACKLOG, Backlog, backlog_of
from shared.delivery.outbox.tables import PARTITIONS
from shared.delivery.relay.pending import Pending
from shared.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.database import Database
    from shared.delivery.relay.sender import Receipt


# One at a time counts the replicas and takes what is free: else two might take too much.
_ONE_AT_A_TIME = """\
SELECT pg_advisory_xact_lock(hashtextextended('glam.leases.' || current_schema(), 0))"""
_PRESENT = """\
INSERT INTO outbox_relays VALUES ($1, clock_timestamp() + $2 * interval '1 second')
ON CONFLICT (owner) DO UPDATE SET expires_at = excluded.expires_at"""
_FORGET_THE_DEAD = "DELETE FROM outbox_relays WHERE expires_at < clock_timestamp()"
_SHARE = "SELECT ceil($1::numeric / greatest(count(*), 1))::int FROM outbox_relays"
_RENEW = """\
UPDATE outbox_leases SET expires_at = clock_timestamp() + $2 * interval '1 second'
WHERE owner = $1 RETURNING partition"""
_TAKE = """\
UPDATE outbox_leases SET owner = $1, expires_at = clock_timestamp() + $2 * interval '1 second',
  token = greatest(token + 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
WHERE partition IN (
  SELECT partition FROM outbox_leases WHERE owner IS NULL OR expires_at < clock_timestamp()
  ORDER BY partition LIMIT $3 FOR UPDATE)
RETURNING partition"""
_GIVE_UP = """\
UPDATE outbox_leases SET owner = NULL, expires_at = NULL
WHERE owner = $1 AND partition = ANY($2::int[])"""
_LEAVE = """\
WITH gone AS (DELETE FROM outbox_relays WHERE owner = $1)
UPDATE outbox_leases SET owner = NULL, expires_at = NULL WHERE owner = $1"""
_NAME = "SELECT outbox FROM outbox_leases LIMIT 1"

# What is new comes first, what was delayed or failed behind it: however much cannot be published,
# the rest can. A message that failed holds back the later ones of its key until it is published:
# the new ones altogether, those that failed as well for as long as it waits for its next attempt.
# The conditions repeat those of the partial indexes word for word, or the planner would read the
# table. Another relay's partitions are not even looked at. What is new and was not delayed is due
# whatever the clock says: one that goes back would let the later ones of a key pass the earlier.
_COLUMNS = "id, event_id, subject, key, message_id, headers, body, created_at, attempts"
_PARTITION = "((hashtextextended(coalesce(key, event_id), 0) & 15)::int)"
_NOT_HELD_BACK = """\
(key IS NULL OR NOT EXISTS (
  SELECT FROM outbox AS earlier
  WHERE earlier.published_at IS NULL AND earlier.attempts > 0
    AND earlier.key = due.key AND earlier.id < due.id{}))"""
_DUE = f"""\
SELECT due.*, lease.partition, lease.token
FROM outbox_leases AS lease CROSS JOIN LATERAL (
  (SELECT {_COLUMNS} FROM outbox AS due
   WHERE {_PARTITION} = lease.partition
     AND published_at IS NULL AND attempts = 0 AND NOT delayed
     AND {_NOT_HELD_BACK.format("")}
   ORDER BY id LIMIT $2)
  UNION ALL
  (SELECT {_COLUMNS} FROM outbox AS due
   WHERE {_PARTITION} = lease.partition
     AND published_at IS NULL AND attempts = 0 AND delayed
     AND available_at <= now() AND {_NOT_HELD_BACK.format("")}
   ORDER BY available_at, id LIMIT $2)
  UNION ALL
  (SELECT {_COLUMNS} FROM outbox AS due
   WHERE {_PARTITION} = lease.partition
     AND published_at IS NULL AND attempts > 0 AND available_at <= now()
     AND {_NOT_HELD_BACK.format(" AND earlier.available_at > now()")}
   ORDER BY id LIMIT $3)
) AS due
WHERE lease.owner = $1 AND lease.expires_at > clock_timestamp()"""  # noqa: S608 - constants

_WAITING = f"""\
SELECT EXISTS (
  SELECT FROM outbox_leases AS lease CROSS JOIN LATERAL (
    SELECT FROM outbox
    WHERE {_PARTITION} = lease.partition AND published_at IS NULL AND attempts > 0 LIMIT 1) AS due
  WHERE lease.owner = $1)"""  # noqa: S608 - constants

# Next attempt after 1, 2, 4, ... seconds, at most 30; and never given up. What was written under a
# token that is no longer the lease's is refused: the partition's new owner knows better.
_MARK = """\
UPDATE outbox SET
  published_at = CASE WHEN done.error IS NULL THEN clock_timestamp() END,
  stream_sequence = done.sequence,
  attempts = attempts + (done.error IS NOT NULL)::int,
  last_error = coalesce(done.error, last_error),
  available_at = CASE WHEN done.error IS NULL THEN available_at ELSE
    clock_timestamp() + least(30, power(2, least(attempts, 5))) * interval '1 second' END
FROM unnest($2::bigint[], $3::int[], $4::bigint[], $5::bigint[], $6::text[])
  AS done (id, partition, token, sequence, error)
JOIN outbox_leases AS lease
  ON lease.partition = done.partition AND lease.token = done.token AND lease.owner = $1
WHERE outbox.id = done.id AND outbox.published_at IS NULL
RETURNING outbox.id"""

_DUE_AGAIN = f"""\
UPDATE outbox SET available_at = now()
FROM outbox_leases AS lease
WHERE lease.owner = $1 AND {_PARTITION} = lease.partition
  AND published_at IS NULL AND attempts > 0 AND available_at > now()"""  # noqa: S608 - constants

# The table may have grown a thousandfold since it was last analysed, or since a plan was kept.
# There is one right way to read it at any size, and these leave the planner no other.
_PLANNING = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off"


class LeasedOutbox:
    """The part of the outbox that this replica has leased.

    It works over one connection of its own, outside of the pool, and takes another one when that
    is lost. It serves one task at a time.

    Args:
        database: whose outbox.
        lease_seconds: how long a partition stays with a replica that says nothing.
    """

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"

    async def renew(self, *, share: bool) -> frozenset[int]:
        """Keep what is ours, take what is free; return the partitions that are ours now.

        Args:
            share: count ourselves among the replicas, and hold no more than our share of the
                partitions. Without it we take whatever nobody holds, and nobody makes room for us.

        Raises:
            DatabaseError: the database is away; or the schema lacks the leases, and why.
        """
        async with self._reached("lease the outbox") as connection, connection.transaction():
            await connection.execute(_ONE_AT_A_TIME)
            await connection.execute(_FORGET_THE_DEAD)
            if share:
                await connection.execute(_PRESENT, self.owner, self._lease_seconds)
                limit = await connection.fetchval(_SHARE, PARTITIONS)
            else:
                limit = PARTITIONS
            held = await self._partitions(connection, _RENEW)
            if excess := held[limit:]:
                await connection.execute(_GIVE_UP, self.owner, excess)
            elif len(held) < limit:
                held += await self._partitions(connection, _TAKE, limit - len(held))
        return frozenset(held[:limit])

    async def leave(self) -> None:
        """Give up all partitions, at once. A second call does nothing.

        Raises:
            DatabaseError: the database is away; then they expire.
        """
        async with self._reached("give up the outbox") as connection:
            await connection.execute(_LEAVE, self.owner)

    async def name(self) -> str:
        """Return the id of this outbox, which no other has.

        Raises:
            DatabaseError: the database is away.
        """
        async with self._reached("lease the outbox") as connection:
            return str(await connection.fetchval(_NAME))

    async def due(self, each: int, retries: int) -> list[Pending]:
        """Read what is due in our partitions, in the order of ids.

        Args:
            each: at most so many new ones, and so many delayed ones, of each partition.
            retries: at most so many of each that failed before.

        Raises:
            DatabaseError: the database is away.
        """
        async with self._reached("relay") as connection:
            rows = await connection.fetch(_DUE, self.owner, each, retries)
        due = [Pending(*row[:5], from_json(row[5]), *row[6:]) for row in rows]  # type: ignore[call-arg]
        due.sort(key=attrgetter("id"))
        return due

    async def mark(self, receipt: Receipt) -> int:
        """Note what was published and what failed, in one statement; return how many were noted.

        There is at least one. The others were sent under a lease that is no longer ours.

        Raises:
            DatabaseError: the database is away.
        """
        done: list[tuple[object, ...]] = [
            (row.id, row.partition, row.token, ack.sequence, None)
            for row, ack, _ in receipt.published
        ]
        done += [
            (row.id, row.partition, row.token, None, str(error)) for row, error in receipt.failed
        ]
        async with self._reached("relay") as connection:
            marked = await connection.fetch(_MARK, self.owner, *map(list, zip(*done, strict=True)))
        return len(marked)

    async def backlog(self) -> Backlog:
        """Count what is due in all partitions; without waiting for a connection of the pool.

        Raises:
            DatabaseError: the database is away.
        """
        async with self._reached("outbox backlog") as connection:
            row = await connection.fetchrow(BACKLOG)
        return backlog_of(*row) if row is not None else Backlog(0, 0.0)

    async def waiting(self) -> bool:
        """Tell whether our messages failed and wait for another attempt.

        Raises:
            DatabaseError: the database is away.
        """
        async with self._reached("relay") as connection:
            return bool(await connection.fetchval(_WAITING, self.owner))

    async def due_again(self) -> None:
        """Make what failed due now: what kept it from its stream is over.

        Raises:
            DatabaseError: the database is away.
        """
        async with self._reached("relay") as connection:
            await connection.execute(_DUE_AGAIN, self.owner)

    def close(self) -> None:
        """Close the connection. A second call does nothing; a later use opens another."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _partitions(
        self, connection: asyncpg.Connection[asyncpg.Record], statement: str, *limit: int
    ) -> list[int]:
        rows = await connection.fetch(statement, self.owner, self._lease_seconds, *limit)
        return sorted(row[0] for row in rows)

    @asynccontextmanager
    async def _reached(self, operation: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
        """Give the connection; say what went wrong in our words, and what to do without leases.

        A step that was broken off, by a cancellation too, may have left its transaction open on the
        server: all that follows would be done in it and never committed. So another connection is
        taken then.
        """
        try:
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = self._connection = await self._database.connect()
                await connection.execute(_PLANNING)
            yield connection
        except BaseException as error:
            self.close()
            if isinstance(error, OSError | TimeoutError):
                raise DatabaseError(
                    f"the connection was lost: {error or type(error).__name__}",
                    operation=operation,
                    retryable=True,
                ) from error
            if isinstance(error, asyncpg.UndefinedTableError):
                raise DatabaseError(
                    "the schema has no leases for its outbox: add a revision that calls "
                    "`shared.delivery.create_outbox_leases(op)`",
                    operation=operation,
                    retryable=False,
                ) from error
            if (ours := translated(error, operation)) is not None:
                raise ours from error
            raise
