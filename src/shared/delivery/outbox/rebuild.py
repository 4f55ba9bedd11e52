"""Filling a stream again from the outbox, when it was lost."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import ARRAY, BigInteger, bindparam, text

from shared.database import translate_errors
from shared.delivery.relay.pending import Pending
from shared.delivery.relay.sender import Sender
from shared.errors import MessageBusError
from shared.events import CONVENTION, StreamTable
from shared.messaging import StreamStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from shared.database import Database
    from shared.events import StreamDefinition
    from shared.messaging import Bus


_logger = logging.getLogger(__name__)

_BATCH = 500
_LOOKUPS = 64  # how many messages the stream is asked for at once

_KEPT = text("""\
SELECT id, event_id, subject, key, message_id, headers, body, created_at, attempts, stream_sequence
FROM outbox
WHERE id > :after AND published_at IS NOT NULL
  AND (CAST(:since AS timestamptz) IS NULL OR created_at >= :since)
ORDER BY id LIMIT :batch""")
_MOVED = text("""\
UPDATE outbox SET stream_sequence = moved.sequence
FROM unnest(:ids, :sequences) AS moved (id, sequence) WHERE outbox.id = moved.id""").bindparams(
    bindparam("ids", type_=ARRAY(BigInteger)), bindparam("sequences", type_=ARRAY(BigInteger))
)


@dataclass(slots=True)
class Rebuilt:
    """What was found and done: rows ``kept`` by the outbox, of which the stream had ``present``.

    ``published`` were missing and are in the stream again; in a dry run, they would be.
    """

    kept: int = 0
    present: int = 0
    published: int = 0


class _Kept(NamedTuple):
    message: Pending
    stream: str
    sequence: int | None


async def rebuild_streams(
    database: Database,
    bus: Bus,
    *,
    streams: StreamTable = CONVENTION,
    stream: str | None = None,
    since: datetime | None = None,
    dry_run: bool = False,
    rate: float | None = None,
) -> Rebuilt:
    """Publish again what the outbox has published and the stream no longer has.

    The messages go out in the order of the outbox, under the ids they had, so that a consumer with
    an inbox handles none twice. What the stream still has is left alone. It may be interrupted and
    repeated: each message found or stored again is noted with its new sequence. Messages that the
    relays publish meanwhile come in between; where order matters more than time, stop them first.

    Args:
        database: whose outbox.
        bus: where the streams are; one that is gone is made anew, unless it is somebody else's.
        streams: those of the service whose outbox it is: `Service.streams_with`.
        stream: only this one; by default all that the outbox has published to.
        since: only what was added at this time or later.
        dry_run: only look; nothing is published or made.
        rate: at most so many messages a second; None as fast as it goes.

    Raises:
        ValueError: ``rate`` is not above zero, or there is no stream for a subject.
        DatabaseError: the database is away.
        MessageBusError: the bus is away, or a message was refused; what was published before is
            in the stream, and the next call goes on from there. Also where the stream takes for a
            duplicate what was deleted from it: its window of ids has to pass first.
    """
    if rate is not None and rate <= 0:
        raise ValueError(f"rate must be above zero, in messages a second: {rate}")
    rebuilt = Rebuilt()
    sender = Sender(bus.publisher, atomic=False)
    there: dict[str, bool] = {}
    began, after = time.monotonic(), 0
    while True:
        rows, last = await _kept(database, streams, after, since, stream)
        if last is None:
            return rebuilt
        after = last
        rebuilt.kept += len(rows)
        for definition in {streams.holding(row.message.subject) for row in rows}:
            if definition.name not in there:
                there[definition.name] = await _exists(bus, definition, make=not dry_run)
        present = await _present(bus, [row for row in rows if there[row.stream]])
        missing = [row for row in rows if row.message.id not in present]
        found = 0 if dry_run else await _publish(database, bus, sender, missing)
        rebuilt.present += len(present) + found
        rebuilt.published += len(missing) - found
        if missing:
            _logger.info(
                "rebuilding", extra={"published": rebuilt.published, "present": rebuilt.present}
            )
        if rate is not None and not dry_run:
            await asyncio.sleep(began + rebuilt.published / rate - time.monotonic())


async def _kept(
    database: Database,
    streams: StreamTable,
    after: int,
    since: datetime | None,
    stream: str | None,
) -> tuple[list[_Kept], int | None]:
    """Read the next rows; return those of the stream, and where to go on."""
    with translate_errors("rebuild"):
        async with database.engine.connect() as connection:
            found = (
                await connection.execute(_KEPT, {"after": after, "since": since, "batch": _BATCH})
            ).all()
    rows = [
        _Kept(Pending(*row[:9], partition=0, token=0), streams.holding(row.subject).name, row[9])  # type: ignore[misc]
        for row in found
    ]
    last = found[-1].id if found else None
    return [row for row in rows if stream in {None, row.stream}], last


async def _exists(bus: Bus, stream: StreamDefinition, *, make: bool) -> bool:
    if make and not stream.external:
        await bus.ensure_stream(stream)
        return True
    return await StreamStore(bus).stream(stream.name) is not None


async def _present(bus: Bus, rows: Sequence[_Kept]) -> set[int]:
    """Return the ids of the rows whose very message is where the outbox says."""
    store = StreamStore(bus)
    present: set[int] = set()
    for start in range(0, len(rows), _LOOKUPS):
        part = rows[start : start + _LOOKUPS]
        found = await asyncio.gather(*(_is_there(store, row) for row in part))
        present |= {row.message.id for row, there in zip(part, found, strict=True) if there}
    return present


async def _is_there(store: StreamStore, row: _Kept) -> bool:
    if row.sequence is None:
        return False
    message = await store.at(row.stream, row.sequence)
    return message is not None and message.headers.get("Nats-Msg-Id") == row.message.message_id


async def _publish(database: Database, bus: Bus, sender: Sender, rows: Sequence[_Kept]) -> int:
    """Publish; return how many the stream turned out to have, elsewhere than the outbox said.

    A stream remembers ids for a while, also those of messages that were deleted: what it takes for
    a duplicate is looked for.
    """
    receipt = await sender.send([row.message for row in rows])
    if receipt.published:
        with translate_errors("rebuild"):
            async with database.engine.begin() as connection:
                await connection.execute(
                    _MOVED,
                    {
                        "ids": [row.id for row, _, _ in receipt.published],
                        "sequences": [ack.sequence for _, ack, _ in receipt.published],
                    },
                )
    if receipt.failed:
        raise receipt.failed[0][1]
    duplicates = [
        _Kept(row, ack.stream, ack.sequence) for row, ack, _ in receipt.published if ack.duplicate
    ]
    found = await _present(bus, duplicates)
    gone = [row for row in duplicates if row.message.id not in found]
    if gone:
        raise MessageBusError(
            f"stream {gone[0].stream} no longer has {len(gone)} messages, but takes them for "
            "duplicates: it remembers their ids until its duplicate window has passed; repeat then",
            operation="rebuild",
            stream=gone[0].stream,
        )
    return len(found)
