"""Deletes what the outbox, the inbox and the idempotency keys have kept long enough."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sqlalchemy import text

from shared.database import translate_errors
from shared.delivery.relay.uncancelled import uncancelled
from shared.errors import GlamBaseError

if TYPE_CHECKING:
    from sqlalchemy import TextClause

    from shared.config import DeliverySettings
    from shared.database import Database


_logger = logging.getLogger(__name__)

_PAUSE_SECONDS = 60.0
_BATCH = 1000

# The oldest rows come first in the indexes, so a batch reads little more than it deletes. Rows
# that another replica's janitor is deleting are skipped. Where rows were published late, for their
# delay or an outage, younger ones behind them are past their retention: what is behind a batch is
# looked at as long as anything in it was added before the retention began.
_SWEEP_OUTBOX = text("""\
WITH oldest AS MATERIALIZED (
  SELECT id, created_at, published_at FROM outbox
  WHERE id > :after AND published_at IS NOT NULL ORDER BY id LIMIT :batch),
gone AS (
  DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox WHERE id IN (
      SELECT id FROM oldest WHERE published_at < now() - make_interval(secs => :seconds))
    FOR UPDATE SKIP LOCKED)
  RETURNING id)
SELECT (SELECT count(*) FROM gone), max(id),
  coalesce(bool_or(created_at < now() - make_interval(secs => :seconds)), false)
FROM oldest""")
_SWEEP_INBOX = text("""\
DELETE FROM inbox WHERE (subscriber, message_id) IN (
  SELECT subscriber, message_id FROM inbox
  WHERE handled_at < now() - make_interval(secs => :seconds)
  ORDER BY handled_at LIMIT :batch FOR UPDATE SKIP LOCKED)""")
_SWEEP_KEYS = text("""\
DELETE FROM idempotency_keys WHERE (tenant_id, user_id, key) IN (
  SELECT tenant_id, user_id, key FROM idempotency_keys
  WHERE answered_at < now() - make_interval(secs => :seconds)
  ORDER BY answered_at LIMIT :batch FOR UPDATE SKIP LOCKED)""")
_HAS_KEYS = text("SELECT to_regclass('idempotency_keys') IS NOT NULL")


class Janitor:
    """Keeps the tables at the size of their retention.

    Published messages are kept for a while, so that a lost stream can be filled again; handled ids
    for longer than anything is replayed. What is not published is never deleted. Small batches,
    each a transaction of its own, let vacuum and everybody else work beside it. Any number may run.

    Args:
        database: whose tables; one without idempotency keys will do.
        settings: the retentions.
    """

    def __init__(self, database: Database, settings: DeliverySettings) -> None:
        self._database = database
        self._settings = settings

    async def run(self) -> None:
        """Sweep every minute until cancelled. Failures are logged and tried again."""
        while True:
            try:
                with uncancelled():
                    await self.sweep()
            except GlamBaseError as error:
                _logger.warning("what is past its retention is not cleaned: %s", error)
            except Exception:
                _logger.exception("what is past its retention is not cleaned")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def sweep(self) -> int:
        """Delete all that is past its retention; return how many rows.

        Raises:
            DatabaseError: the database is away or refused.
        """
        settings = self._settings
        outbox = await self._delete_published(settings.outbox_retention_hours)
        inbox = await self._delete(_SWEEP_INBOX, settings.inbox_retention_hours)
        keys = 0
        if await self._has_keys():
            keys = await self._delete(_SWEEP_KEYS, settings.idempotency_retention_hours)
        return outbox + inbox + keys

    async def _has_keys(self) -> bool:
        with translate_errors("clean"):
            async with self._database.engine.connect() as connection:
                return bool(await connection.scalar(_HAS_KEYS))

    async def _delete_published(self, hours: float) -> int:
        """Go through the outbox from its oldest row on, passing over what was deleted just now."""
        deleted, after = 0, 0
        while True:
            limits = {"seconds": hours * 3600, "batch": _BATCH, "after": after}
            with translate_errors("clean"):
                async with self._database.engine.begin() as connection:
                    gone = (await connection.execute(_SWEEP_OUTBOX, limits)).one()
            deleted += int(gone[0])
            if not gone[2]:
                return deleted
            after = gone[1]

    async def _delete(self, statement: TextClause, hours: float) -> int:
        deleted = 0
        while True:
            with translate_errors("clean"):
                async with self._database.engine.begin() as connection:
                    result = await connection.execute(
                        statement, {"seconds": hours * 3600, "batch": _BATCH}
                    )
            deleted += result.rowcount
            if result.rowcount < _BATCH:
                return deleted
