"""The outbox of a service that has been running for long is split without stopping it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import text

from shared.database import migrate

if TYPE_CHECKING:
    from shared.database import Database
    from tests.delivery.world import World

_AS_IT_WAS = (
    "CREATE INDEX ix_outbox_unpublished ON outbox (id) WHERE published_at IS NULL",
    "DROP INDEX ix_outbox_due, ix_outbox_delayed, ix_outbox_failing",
    "DROP TABLE outbox_relays, outbox_leases",
    "ALTER TABLE outbox DROP COLUMN delayed",
    "UPDATE alembic_version SET version_num = '0002'",
    """INSERT INTO outbox (event_id, subject, key, message_id, headers, body, published_at)
    SELECT n, 'evt.credit.counted', 'k' || n % 7, n, '{}', '{}', now()
    FROM generate_series(1, 50000) AS n""",
)
_OLD_INSERT = """\
INSERT INTO outbox (event_id, subject, message_id, headers, body)
VALUES (gen_random_uuid()::text, 'evt.credit.counted', gen_random_uuid()::text, '{}', '{}')"""


async def test_a_filled_outbox_is_split_while_the_service_writes(world: World) -> None:
    database = world.database
    async with database.engine.begin() as connection:
        for statement in _AS_IT_WAS:
            await connection.execute(text(statement))
    split = asyncio.create_task(migrate(database, migrations="shared.delivery.migrations"))
    written = 0
    while not split.done():
        async with database.transaction() as session:
            await session.execute(text(_OLD_INSERT))
        written += 1
    await split
    assert await valid_indexes(database) == {
        "ix_outbox_due",
        "ix_outbox_delayed",
        "ix_outbox_failing",
    }
    # What the old replicas wrote meanwhile is published by the new ones.
    assert (await world.relay().backlog()).count == written > 0
    assert await world.relay().drain()
    assert await world.unpublished() == 0


async def valid_indexes(database: Database) -> set[str]:
    async with database.transaction() as session:
        names = await session.scalars(
            text("""SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
            WHERE indrelid = 'outbox'::regclass AND indisvalid AND indpred IS NOT NULL
            AND relname <> 'ix_outbox_failed'""")
        )
        return set(names)
