"""How an outbox stands: what waits in it, and which relays hold its partitions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from shared.database import translate_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from decimal import Decimal

    from shared.database import Database


# By the partial indexes alone, as large as the table may be.
BACKLOG = """\
SELECT coalesce(sum(size), 0) AS size, coalesce(sum(failing), 0) AS failing,
  coalesce(extract(epoch FROM clock_timestamp() - min(since)), 0) AS age
FROM (
  SELECT count(*) AS size, 0 AS failing, min(greatest(created_at, available_at)) AS since
  FROM outbox WHERE published_at IS NULL AND attempts = 0 AND NOT delayed
  UNION ALL
  SELECT count(*), 0, min(available_at)
  FROM outbox WHERE published_at IS NULL AND attempts = 0 AND delayed
    AND available_at <= clock_timestamp()
  UNION ALL
  SELECT count(*), count(*), min(created_at)
  FROM outbox WHERE published_at IS NULL AND attempts > 0
) AS waiting"""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is due and not yet published: ``failing`` of it has been tried."""

    count: int
    oldest_age_seconds: float
    failing: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A partition of the outbox: who holds it, and for how many seconds unless it is renewed.

    ``owner`` is None when nobody does. One whose time is up (``expires_in_seconds`` below zero)
    has died or froze, and the next relay that looks takes the partition.
    """

    partition: int
    owner: str | None
    token: int
    expires_in_seconds: float | None


@dataclass(frozen=True, slots=True)
class FailingMessage:
    """A message that was tried and is not published; it holds back the later ones of its key."""

    event_id: str
    subject: str
    key: str | None
    attempts: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How an outbox stands: what is due, its leases, and the age of the oldest row it keeps.

    ``failing`` are the oldest of those that were tried in vain, twenty at most; ``backlog.failing``
    says how many there are.
    """

    backlog: Backlog
    leases: Sequence[Lease]
    kept_since: datetime | None
    failing: Sequence[FailingMessage] = ()


_LEASES = text("""\
SELECT partition, owner, token, extract(epoch FROM expires_at - clock_timestamp()) AS remaining
FROM outbox_leases ORDER BY partition""")
_FAILING = text("""\
SELECT event_id, subject, key, attempts, last_error
FROM outbox WHERE published_at IS NULL AND attempts > 0 ORDER BY id LIMIT 20""")
_KEPT_SINCE = text("SELECT created_at FROM outbox ORDER BY id LIMIT 1")


async def read_backlog(database: Database) -> Backlog:
    """Count what is due and not yet published, and the age of the oldest in seconds.

    Raises:
        DatabaseError: the database is away.
    """
    with translate_errors("outbox backlog"):
        async with database.engine.connect() as connection:
            row = (await connection.execute(text(BACKLOG))).one()
    return backlog_of(row.size, row.failing, row.age)


def backlog_of(size: int, failing: int, age: Decimal) -> Backlog:
    """Return the row of ``BACKLOG`` as what it means."""
    return Backlog(int(size), max(0.0, float(age)), int(failing))


async def read_outbox_status(database: Database) -> OutboxStatus:
    """Read how the outbox of the schema stands.

    Raises:
        DatabaseError: the database is away, or the schema has no outbox.
    """
    backlog = await read_backlog(database)
    with translate_errors("outbox status"):
        async with database.engine.connect() as connection:
            leases = [
                Lease(
                    row.partition,
                    row.owner,
                    row.token,
                    None if row.remaining is None else float(row.remaining),
                )
                for row in await connection.execute(_LEASES)
            ]
            kept_since = await connection.scalar(_KEPT_SINCE)
            failing = [FailingMessage(*row) for row in await connection.execute(_FAILING)]
    return OutboxStatus(backlog, leases, kept_since, failing)
