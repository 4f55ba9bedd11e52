"""The outbox, from committed rows of 512 bytes to acknowledged messages in a stream in files.

Servers and client share the machine. What makes the comparisons unfair, and what they leave out:

- Rows that the relay alone is measured with are written by PostgreSQL itself, in one statement
  that counts as part of the time; what it takes is a row of its own. The spans of published
  messages are logged, as in production.
- One key in sixteen messages, the others without: of one key, windows hold one message at a time.
- With `sync_interval: always` a disk is measured, and PostgreSQL flushes each commit to it as well.
  The relay that goes one by one reads a thousand, publishes each and marks it, as one written by
  hand does; it has no leases, no fences and no spans. Ours leases and fences first, which takes it
  as long as some hundred messages, and then lasts: it is given more of them. Beside it the
  publisher by itself: what was never in a database is not read and not marked.
- The insert alone, by asyncpg and by SQLAlchemy's engine: of the same row, which nobody publishes.
- Kept rows are published ones, which the outbox keeps for its retention: none, a hundredth and a
  tenth of `OUTBOX_KEPT_ROWS` (environment; by default a million), and all of them, each number in a
  table of its own. They are written by PostgreSQL before anything is measured.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from shared.config import DeliverySettings, NatsSettings
from shared.context import new_event_id
from shared.database import Database, migrate
from shared.delivery import Relay, UnitOfWork
from shared.dev import NatsServer, PostgresServer
from shared.events import Contract
from shared.messaging import Bus, OutgoingMessage, PubAck
from shared.platform.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from nats.js import JetStreamContext

    from benchmarks.harness import Bench, Run

_SERVICE = "credit-service"
_OPERATIONS = 10_000
_SYNCED_OPERATIONS = 1_000
_SYNCED_BATCH = 500
_WRITTEN_OPERATIONS = 2_000
_WRITERS = 16
_BATCH = 1_000
_SMOKE_ROWS = 1_000
_KEPT_AT_ONCE = 1_000_000
_BODY = b"x" * 512

_ROWS = """\
INSERT INTO outbox (event_id, subject, key, message_id, headers, body, published_at)
SELECT id, 'evt.credit.measured', CASE WHEN n % 16 = 0 THEN 'k' || n % 1000 END, id,
  '{{"X-Correlation-ID": "c-1", "Content-Type": "application/json"}}', :body, {published_at}
FROM (SELECT {id} AS id, n FROM generate_series(1, :rows) AS n) AS made"""
_FILL = text(_ROWS.format(id="gen_random_uuid()::text", published_at="NULL"))
_KEEP = text(_ROWS.format(id="md5(n::text)", published_at="now()"))  # nobody sends these

_INSERT = """\
INSERT INTO outbox (event_id, subject, message_id, headers, body, published_at)
VALUES ($1, $2, $1, '{"X-Correlation-ID": "c-1"}', $3, now())"""


_NEXT = """\
SELECT id, subject, body, message_id FROM outbox
WHERE published_at IS NULL AND attempts = 0 AND NOT delayed ORDER BY id LIMIT 1000"""
_DONE = "UPDATE outbox SET published_at = now() WHERE id = $1"


class Measured(BaseModel):
    """A payload."""

    text: str


MEASURED = Contract("evt.credit.measured", Measured)


async def outbox(bench: Bench) -> None:
    """Compare ways to publish, and to write what is to be published."""
    async with (
        PostgresServer() as postgres,
        NatsServer() as server,
        _bus(server) as bus,
        _schema(postgres, "outbox") as database,
    ):
        await bench.compare(
            "outbox: the relay alone",
            _OPERATIONS,
            {
                "shared: relay": _emptied(database, _relayed(database, bus)),
                "shared: relay, no batches": _emptied(database, _relayed(database, bus, "off")),
                "shared: relay, no spans": _emptied(database, _relayed(database, bus, spans=False)),
                "the rows alone, not relayed": _emptied(database, _filled(database)),
            },
        )
        await bench.compare(
            f"outbox: {_WRITERS} writers of one row each, to the last acknowledgement",
            _WRITTEN_OPERATIONS,
            {
                "shared: unit of work, relay": _emptied(database, _written(database, bus)),
                "asyncpg: the insert alone": _inserted(database),
                "SQLAlchemy: the insert alone": _inserted_by_engine(database),
            },
        )
    await _flushed(bench)


async def outbox_sizes(bench: Bench) -> None:
    """Show what an event costs beside the published ones that are kept."""
    kept = _SMOKE_ROWS if bench.smoke else int(os.environ.get("OUTBOX_KEPT_ROWS", "10000000"))
    async with (
        PostgresServer(options={"wal_level": "minimal", "max_wal_senders": "0"}) as postgres,
        NatsServer() as server,
        _bus(server) as bus,
        AsyncExitStack() as schemas,
    ):
        databases: dict[float, Database] = {}
        for rows in (0, kept // 100, kept // 10, kept):
            databases[rows] = await schemas.enter_async_context(_schema(postgres, f"kept_{rows}"))
            await _keep(databases[rows], rows)
        for title, operations, does in (
            ("the relay alone", _OPERATIONS, _relayed),
            (f"{_WRITERS} writers and the relay", _WRITTEN_OPERATIONS, _written),
        ):
            await bench.curve(
                f"outbox-sizes: {title}",
                operations,
                "kept rows",
                {
                    rows: does(database, bus) if rows else _emptied(database, does(database, bus))
                    for rows, database in databases.items()
                },
            )


async def _flushed(bench: Bench) -> None:
    """Compare where both servers flush what they acknowledge to the disk."""
    async with (
        PostgresServer(options={"fsync": "on", "synchronous_commit": "on"}) as postgres,
        NatsServer(jetstream={"sync_interval": "always"}) as server,
        _bus(server) as bus,
        _schema(postgres, "synced") as database,
    ):
        js = bus.client.jetstream()
        await bench.compare(
            "outbox: sync_interval always, the relay",
            _OPERATIONS,
            {
                "shared: relay, atomic batches": _emptied(database, _relayed(database, bus)),
                "shared: relay, windows": _emptied(database, _relayed(database, bus, "off")),
                "asyncpg and nats-py: one by one": _emptied(
                    database, _relayed_one_by_one(database, js)
                ),
            },
            fewer={"asyncpg and nats-py: one by one": _SYNCED_OPERATIONS},
        )

        async def batches(operations: int) -> None:
            messages = [
                OutgoingMessage(MEASURED.subject, _BODY, {}, new_event_id())
                for _ in range(operations)
            ]
            for start in range(0, operations, _SYNCED_BATCH):
                for outcome in await bus.publisher.publish_atomic(
                    messages[start : start + _SYNCED_BATCH]
                ):
                    if not isinstance(outcome, PubAck):
                        raise outcome

        async def one_by_one(operations: int) -> None:
            for _ in range(operations):
                await js.publish(MEASURED.subject, _BODY, headers={"Nats-Msg-Id": new_event_id()})

        await bench.compare(
            "outbox: sync_interval always, the publisher",
            _SYNCED_OPERATIONS,
            {
                f"shared: publish_atomic, {_SYNCED_BATCH} at a time": batches,
                "nats-py: publish, one by one": one_by_one,
            },
        )


@asynccontextmanager
async def _bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with Bus(NatsSettings(servers=(server.url,)), name="benchmarks") as bus:
        await bus.ensure_stream(STREAMS["CREDIT"])
        yield bus


@asynccontextmanager
async def _schema(postgres: PostgresServer, schema: str) -> AsyncIterator[Database]:
    settings = postgres.settings.model_copy(update={"pool_size": _WRITERS + 2})
    async with Database(settings, schema=schema) as database:
        await migrate(database, migrations="shared.delivery.migrations")
        yield database


async def _fill(database: Database, rows: int) -> None:
    async with database.engine.begin() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        await connection.execute(_FILL, {"rows": rows, "body": _BODY})


async def _keep(database: Database, rows: int) -> None:
    """Fill an empty table as weeks of publishing would."""
    async with database.engine.begin() as connection:
        await connection.execute(text("SET LOCAL statement_timeout = 0"))
        await connection.execute(text("TRUNCATE outbox"))  # what follows in it is not logged
        for start in range(0, rows, _KEPT_AT_ONCE):
            some = min(_KEPT_AT_ONCE, rows - start)
            await connection.execute(_KEEP, {"rows": some, "body": _BODY})
    async with database.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("SET statement_timeout = 0"))
        await connection.execute(text("VACUUM ANALYZE outbox"))


def _relay(database: Database, bus: Bus, atomic: str, *, spans: bool = True) -> Relay:
    settings = DeliverySettings.model_validate({"batch": _BATCH, "atomic": atomic, "spans": spans})
    return Relay(database, bus.publisher, service=_SERVICE, settings=settings, bus=bus)


def _relayed(database: Database, bus: Bus, atomic: str = "auto", *, spans: bool = True) -> Run:
    async def run(operations: int) -> None:
        await _fill(database, operations)
        if not await _relay(database, bus, atomic, spans=spans).drain():
            raise RuntimeError("not all of it was published")

    return run


def _relayed_one_by_one(database: Database, js: JetStreamContext) -> Run:
    """Read what is next; publish each message, and mark it."""

    async def run(operations: int) -> None:
        await _fill(database, operations)
        connection = await database.connect()
        try:
            while rows := await connection.fetch(_NEXT):
                for row in rows:
                    headers = {"Nats-Msg-Id": row["message_id"]}
                    await js.publish(row["subject"], row["body"], headers=headers)
                    await connection.execute(_DONE, row["id"])
        finally:
            await connection.close()

    return run


def _filled(database: Database) -> Run:
    return lambda operations: _fill(database, operations)


def _emptied(database: Database, run: Run) -> Run:
    """Do it on an empty table."""

    async def emptied(operations: int) -> None:
        async with database.engine.begin() as connection:
            await connection.execute(text("TRUNCATE outbox"))
        await run(operations)

    return emptied


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


def _inserted_by_engine(database: Database) -> Run:
    """The rows of the writers, by a plain engine; each statement commits by itself."""

    async def run(operations: int) -> None:
        engine = create_async_engine(
            database.url,
            pool_size=_WRITERS,
            isolation_level="AUTOCOMMIT",
            connect_args={"server_settings": {"search_path": database.schema}},
        )

        async def write(count: int) -> None:
            for _ in range(count):
                async with engine.connect() as connection:
                    await connection.exec_driver_sql(
                        _INSERT, (new_event_id(), MEASURED.subject, _BODY)
                    )

        await asyncio.gather(*(write(-(-operations // _WRITERS)) for _ in range(_WRITERS)))
        await engine.dispose()

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
