"""What the inbox adds to the transaction of a handler: one row, which goes with BEGIN.

The handler's own work is the smallest that makes sense: BEGIN, one row, COMMIT, through the same
unit of work; three journeys to PostgreSQL with the inbox and without. A handler that does more pays
the same for its inbox. PostgreSQL flushes each commit to the disk, as in production (`fsync` on),
and shares the machine.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import text

from shared.context import new_event_id
from shared.database import Database, migrate
from shared.delivery import Inbox, UnitOfWork
from shared.dev import PostgresServer

if TYPE_CHECKING:
    from benchmarks.harness import Bench, Run

_OPERATIONS = 1_000
_AT_ONCE = 16
_WORK = text("INSERT INTO ledger (reference, amount) VALUES (:reference, 7)")


async def inbox(bench: Bench) -> None:
    """Compare a transaction with the inbox and the same without."""
    async with PostgresServer(options={"fsync": "on", "synchronous_commit": "on"}) as postgres:
        settings = postgres.settings.model_copy(update={"pool_size": _AT_ONCE})
        async with Database(settings, schema="credit") as database:
            await migrate(database, migrations="shared.delivery.migrations")
            async with database.transaction() as session:
                await session.execute(
                    text("CREATE TABLE ledger (reference text PRIMARY KEY, amount int NOT NULL)")
                )
            await bench.compare(
                f"inbox: a handler's transaction, {_AT_ONCE} at once",
                _OPERATIONS,
                {
                    "with the inbox": _handling(database, True),
                    "without": _handling(database, False),
                },
            )


def _handling(database: Database, inbox: bool) -> Run:
    async def handle() -> None:
        message = new_event_id()
        async with UnitOfWork(database, service="credit-service") as uow:
            if not inbox or await Inbox(uow.session).accept("credit-debit", message):
                await uow.session.execute(_WORK, {"reference": message})

    async def run(operations: int) -> None:
        async def several(count: int) -> None:
            for _ in range(count):
                await handle()

        await asyncio.gather(*(several(-(-operations // _AT_ONCE)) for _ in range(_AT_ONCE)))

    return run
