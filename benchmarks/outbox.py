"""The outbox, from committed rows of 512 bytes to acknowledged messages in a stream in files.

Servers and client share the machine. What makes the comparisons unfair, and what they leave out:

- Rows that the relay alone is measured with are written by PostgreSQL itself, in one statement
  that counts as part of the time; the spans of published messages are logged, as in production.
- One key in sixteen messages, the others without: of one key, windows hold one message at a time.
- With `sync_interval: always` a disk is measured. What the peer of nats-py publishes was never in
  a database, and is not marked there.
- Kept rows are `OUTBOX_KEPT_ROWS` (environment; by default a million): published ones, which the
  outbox keeps for its retention.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel
from sqlalchemy import text

from shared.config import DeliverySettings, NatsSettings
from shared.context import new_event_id
from shared.database import Database, migrate
from shared.delivery import Relay, UnitOfWork
from shared.dev import NatsServer, PostgresServer
from shared.events import Contract, Streams
from shared.messaging import Bus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from benchmarks.harness import Bench, Run

_SERVICE = "credit-service"
_OPERATIONS = 20_000
_SYNCED_OPERATIONS = 1_000
_WRITTEN_OPERATIONS = 5_000
_WRITERS = 16
_BATCH = 1_000
_SMOKE_ROWS = 1_000
_BODY = b"x" * 512

_FILL = text("""\
INSERT INTO outbox (event_id, subject, key, message_id, headers, body, published_at)
SELECT id, 'evt.credit.measured', CASE WHEN n % 16 = 0 THEN 'k' || n % 1000 END, id,
  '{"X-Correlation-ID": "c-1", "Content-Type": "application/json"}', :body,
  CASE WHEN :kept THEN now() END
FROM (SELECT gen_random_uuid()::text AS id, n FROM generate_series(1, :rows) AS n) AS made""")


_INSERT = """\
INSERT INTO outbox (event_id, subject, message_id, headers, body, published_at)
VALUES ($1, $2, $1, '{"X-Correlation-ID": "c-1"}', $3, now())"""


class Measured(BaseModel):
    """A payload."""

    text: str


MEASURED = Contract("evt.credit.measured", Measured)


async def outbox(bench: Bench) -> None:
    """Compare ways to publish, and tables of different size."""
    kept = _SMOKE_ROWS if bench.smoke else int(os.environ.get("OUTBOX_KEPT_ROWS", "1000000"))
    async with PostgresServer() as postgres, NatsServer() as server, _bus(server) as bus:
        async with _schema(postgres, "small") as small, _schema(postgres, "large") as large:
            await _fill(large, kept, kept=True)
            async with large.engine.connect() as connection:
                await connection.execution_options(isolation_level="AUTOCOMMIT")
                await connection.execute(text("VACUUM ANALYZE outbox"))
            await bench.compare(
                "outbox: the relay alone",
                _OPERATIONS,
                {
                    "an empty table": _relayed(small, bus),
                    f"{kept:,} kept rows": _relayed(large, bus),
                    "an empty table, no batches": _relayed(small, bus, atomic="off"),
                    "an empty table, no spans": _relayed(small, bus, spans=False),
                },
            )
            await bench.compare(
                f"outbox: {_WRITERS} writers of one row each, to the last acknowledgement",
                _WRITTEN_OPERATIONS,
                {
                    "an empty table": _written(small, bus),
                    f"{kept:,} kept rows": _written(large, bus),
                    "asyncpg: the insert alone": _inserted(small),
                },
            )
        synced = NatsServer(jetstream={"sync_interval": "always"})
        async with _schema(postgres, "synced") as database, synced, _bus(synced) as durable:
            js = durable.client.jetstream()

            async def one_by_one(operations: int) -> None:
                for _ in range(operations):
                    await js.publish(
                        MEASURED.subject, _BODY, headers={"Nats-Msg-Id": new_event_id()}
                    )

            contenders: Mapping[str, Run] = {
                "shared: relay, atomic batches": _relayed(database, durable),
                "shared: relay, windows": _relayed(database, durable, atomic="off"),
                "nats-py: publish, one by one": one_by_one,
            }
            await bench.compare("outbox: sync_interval always", _SYNCED_OPERATIONS, contenders)


@asynccontextmanager
async def _bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus(NatsSettings(servers=(server.url,)), name="benchmarks") as bus:
        await bus.ensure_stream(Streams.CREDIT)
        yield bus


@asynccontextmanager
async def _schema(postgres: PostgresServer, schema: str) -> AsyncIterator[Database]:
    settings = postgres.settings.model_copy(update={"pool_size": _WRITERS + 2})
    async with Database(settings, schema=schema) as database:
        await migrate(database, migrations="shared.delivery.migrations")
        yield database


async def _fill(database: Database, rows: int, *, kept: bool = False) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        await connection.execute(_FILL, {"rows": rows, "body": _BODY, "kept": kept})


def _relay(database: Database, bus: Bus, atomic: str, *, spans: bool = True) -> Relay:
    settings = DeliverySettings.model_validate({"batch": _BATCH, "atomic": atomic, "spans": spans})
    return Relay(database, bus.publisher, service=_SERVICE, settings=settings, bus=bus)


def _relayed(database: Database, bus: Bus, *, atomic: str = "auto", spans: bool = True) -> Run:
    async def run(operations: int) -> None:
        await _fill(database, operations)
        if not await _relay(database, bus, atomic, spans=spans).drain():
            raise RuntimeError("not all of it was published")

    return run


def _inserted(database: Database) -> Run:
    """The rows of the writers, by the driver alone; nobody publishes them."""

    async def run(operations: int) -> None:
        async def write(count: int) -> None:
            connection = await database.connect()
            try:
                for _ in range(count):
                    name = new_event_id()
                    await connection.execute(_INSERT, name, MEASURED.subject, _BODY)
            finally:
                await connection.close()

        await asyncio.gather(*(write(-(-operations // _WRITERS)) for _ in range(_WRITERS)))

    return run


def _written(database: Database, bus: Bus) -> Run:
    async def run(operations: int) -> None:
        relay = _relay(database, bus, "auto")

        async def write(count: int) -> None:
            for _ in range(count):
                async with UnitOfWork(
                    database, service=_SERVICE, on_commit=relay.wake, notify=False
                ) as uow:
                    uow.outbox.add(MEASURED, Measured(text="x" * 256))

        running = asyncio.create_task(relay.run())
        each = -(-operations // _WRITERS)
        await asyncio.gather(*(write(each) for _ in range(_WRITERS)))
        while not await relay.drain():
            pass
        running.cancel()
        await asyncio.wait([running])

    return run
