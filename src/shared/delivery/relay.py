"""The relay: carries committed messages from the outbox into their streams."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sqlalchemy import ARRAY, BigInteger, Text, bindparam, text

from shared.context import Context, TraceContext, bind
from shared.database import translate_errors
from shared.delivery.janitor import Janitor
from shared.delivery.listener import Listener
from shared.errors import GlamBaseError, MessageBusError
from shared.messaging import OutgoingMessage
from shared.metrics import (
    outbox_backlog,
    outbox_oldest_age_seconds,
    outbox_relay_seconds,
    outbox_relayed_total,
)
from shared.tracing import record_span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection

    from shared.config import DeliverySettings
    from shared.database import Database
    from shared.messaging import PubAck

__all__ = ["Backlog", "Publishes", "Relay", "RelayStatus"]

_logger = logging.getLogger(__name__)

# While nothing gets through, a few messages at growing intervals ask whether the bus is back.
_PROBE = 10
_RETRIES = 50
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0
_OUTAGE_TURNS = 3

_MEASURE_EVERY_SECONDS = 5.0
_LOCK_RETRY_SECONDS = 0.05
_LOCK_RETRIES = 40

_LOCK = text(
    "SELECT pg_try_advisory_xact_lock(hashtextextended('glam.relay.' || current_schema(), 0))"
)

# What is new comes first, what failed behind it: however much cannot be published, the rest can. A
# message that failed holds back the later ones of its key until it is published. The conditions
# repeat those of the two partial indexes word for word, or the planner would read the table.
_COLUMNS = "id, event_id, subject, key, message_id, headers, body, created_at, attempts"
_DUE = text(f"""\
(SELECT {_COLUMNS} FROM outbox AS due
WHERE published_at IS NULL AND attempts = 0 AND available_at <= now()
  AND (key IS NULL OR NOT EXISTS (
    SELECT FROM outbox AS earlier
    WHERE earlier.published_at IS NULL AND earlier.attempts > 0
      AND earlier.key = due.key AND earlier.id < due.id))
ORDER BY id LIMIT :limit)
UNION ALL
(SELECT {_COLUMNS} FROM outbox
WHERE published_at IS NULL AND attempts > 0 AND available_at <= now()
ORDER BY id LIMIT :retries)""")  # noqa: S608 - nothing but constants

_WAITING = text("SELECT EXISTS (SELECT FROM outbox WHERE published_at IS NULL AND attempts > 0)")

_PUBLISHED = text("""\
UPDATE outbox SET published_at = clock_timestamp(), stream_sequence = done.sequence
FROM unnest(:ids, :sequences) AS done (id, sequence) WHERE outbox.id = done.id""").bindparams(
    bindparam("ids", type_=ARRAY(BigInteger)), bindparam("sequences", type_=ARRAY(BigInteger))
)

# Next attempt after 1, 2, 4, ... seconds, at most 30; and never given up.
_FAILED = text("""\
UPDATE outbox SET attempts = attempts + 1, last_error = failed.error,
  available_at = clock_timestamp() + least(30, power(2, least(attempts, 5))) * interval '1 second'
FROM unnest(:ids, :errors) AS failed (id, error) WHERE outbox.id = failed.id""").bindparams(
    bindparam("ids", type_=ARRAY(BigInteger)), bindparam("errors", type_=ARRAY(Text))
)

_DUE_AGAIN = text("""\
UPDATE outbox SET available_at = now()
WHERE published_at IS NULL AND attempts > 0 AND available_at > now()""")

_BACKLOG = text("""\
SELECT count(*) AS size,
  coalesce(extract(epoch FROM clock_timestamp() - min(
    CASE WHEN attempts > 0 THEN created_at ELSE greatest(created_at, available_at) END)), 0) AS age,
  count(*) FILTER (WHERE attempts > 0) AS failing
FROM outbox WHERE published_at IS NULL AND (available_at <= clock_timestamp() OR attempts > 0)""")


class Publishes(Protocol):
    """What the relay needs of a publisher; `shared.messaging.Publisher` has it."""

    async def publish_all(
        self, messages: Sequence[OutgoingMessage]
    ) -> list[PubAck | MessageBusError]:
        """Publish in order; return each message's acknowledgement or error in its place."""
        ...


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is due and not yet published: ``failing`` of it has been tried."""

    count: int
    oldest_age_seconds: float
    failing: int = 0


@dataclass(slots=True)
class RelayStatus:
    """How the relay of this process fares.

    ``failed_turns`` counts those in a row that got nothing through; ``last_error`` is None again
    once something gets through.
    """

    running: bool = False
    relayed: int = 0
    last_relayed_at: datetime | None = None
    failed_turns: int = 0
    last_error: str | None = None


class _Row(NamedTuple):
    id: int
    event_id: str
    subject: str
    key: str | None
    message_id: str
    headers: dict[str, str]
    body: bytes
    created_at: datetime
    attempts: int


@dataclass(slots=True)
class _Turn:
    """What one transaction of the relay did.

    ``mine``: it got the lock. ``waiting``: nothing was due, yet messages wait for another attempt.
    """

    mine: bool = True
    taken: int = 0
    waiting: bool = False
    published: list[tuple[_Row, PubAck, datetime]] = field(default_factory=list)
    failed: list[tuple[_Row, MessageBusError]] = field(default_factory=list)

    @property
    def outage(self) -> bool:
        """Nothing got through, not even what was never tried before."""
        return not self.published and any(row.attempts == 0 for row, _ in self.failed)


class Relay:
    """Publishes what the outbox holds: at least once to the stream, which keeps it once.

    Every replica runs one; one at a time is active for a schema. A turn is one transaction: take
    the schema's advisory lock, read what is due in the order of ids, publish, mark, commit. The
    lock ends with the transaction, so a relay that dies lets go at once. One that freezes lets go
    when PostgreSQL's idle-in-transaction timeout ends its connection; it cannot mark anything
    afterwards.

    **Once.** A relay that dies between publishing and marking leaves messages that the next one
    publishes again. The stream drops them by their ``Nats-Msg-Id``, as long as its window for
    duplicates lasts (120 seconds by default). Beyond that the inbox of the subscriber does.

    **Order.** Messages of one key are published in the order of their ids, the next only when the
    stream has acknowledged the one before. A message that fails holds back the later ones of its
    key, and nothing else. Messages without a key are published in order and acknowledged in any.

    **Outages.** Neither of the database nor of the bus ends ``run``. They are logged and shown in
    ``status``; what is committed waits, and goes out when both are back.

    Args:
        database: whose outbox.
        publisher: into which bus.
        service: the service, for logs, spans and metrics.
        settings: batch, poll interval, retention.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publishes,
        *,
        service: str,
        settings: DeliverySettings,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._service = service
        self._settings = settings
        self._janitor = Janitor(database, settings)
        self._listener = Listener(database, self.wake)
        self._woken = asyncio.Event()
        self._one_turn = asyncio.Lock()
        self._measured = float("-inf")
        self._status = RelayStatus()

    @property
    def status(self) -> RelayStatus:
        """How it fares now; a copy."""
        return replace(self._status)

    def wake(self) -> None:
        """Tell that there is something to publish. Costs nothing; may be said too often."""
        self._woken.set()

    async def run(self) -> None:
        """Relay until cancelled, listening for commits elsewhere and cleaning up beside."""
        self._status.running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._relay(), name=f"{self._service} outbox relay")
                tasks.create_task(self._janitor.run(), name=f"{self._service} outbox janitor")
                if self._settings.notify:
                    tasks.create_task(self._listener.run(), name=f"{self._service} outbox listener")
        finally:
            self._status.running = False

    async def drain(self) -> bool:
        """Publish what is due now, whether or not ``run`` is running.

        Returns:
            True when all of it is published. False when the database or the bus did not let it, or
            when another replica's relay is at work and goes on; what is left stays in the outbox.
        """
        complete = True
        locked_out = 0
        while locked_out < _LOCK_RETRIES:
            turn = await self._turn_or_none(self._settings.batch)
            if turn is None or (turn.failed and not turn.published):
                return False
            complete = complete and not turn.failed
            if not turn.mine:
                locked_out += 1
                await asyncio.sleep(_LOCK_RETRY_SECONDS)
            elif not turn.taken:
                return complete
        return False

    async def backlog(self) -> Backlog:
        """Count what is due and not yet published, and the age of the oldest in seconds.

        Raises:
            DatabaseError: the database is away.
        """
        with translate_errors("outbox backlog"):
            async with self._database.engine.connect() as connection:
                row = (await connection.execute(_BACKLOG)).one()
        backlog = Backlog(row.size, max(0.0, float(row.age)), row.failing)
        outbox_backlog.labels(self._service).set(backlog.count)
        outbox_oldest_age_seconds.labels(self._service).set(backlog.oldest_age_seconds)
        return backlog

    async def _relay(self) -> None:
        while True:
            # Before the turn: what is committed during it wakes the next one.
            self._woken.clear()
            stalled = self._status.failed_turns > 0
            limit = min(_PROBE, self._settings.batch) if stalled else self._settings.batch
            turn = await self._turn_or_none(limit)
            if turn is None or turn.outage:
                # Not cut short by wake(): commits go on while nothing gets through.
                await asyncio.sleep(_pause_seconds(self._status.failed_turns))
            elif turn.failed and not turn.published:
                await self._wait(_pause_seconds(self._status.failed_turns))
            elif not turn.mine:
                await self._wait(self._settings.poll_seconds / 10)
            elif turn.taken < limit:
                await self._measure()
                await self._wait(self._settings.poll_seconds)

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)

    async def _measure(self) -> None:
        if time.monotonic() - self._measured < _MEASURE_EVERY_SECONDS:
            return
        self._measured = time.monotonic()
        try:
            await self.backlog()
        except GlamBaseError as error:
            _logger.warning("outbox backlog unknown: %s", error)

    async def _turn_or_none(self, limit: int) -> _Turn | None:
        """Take one turn; None when it failed as a whole. Log what happened, note it in `status`."""
        status = self._status
        began = time.perf_counter()
        try:
            async with self._one_turn:
                turn = await self._turn(limit)
        except GlamBaseError as error:
            status.failed_turns += 1
            status.last_error = str(error)
            _logger.error("outbox relay: %s", error, extra={"failed_turns": status.failed_turns})  # noqa: TRY400 - an outage, not a mistake
            return None
        except Exception as error:
            status.failed_turns += 1
            status.last_error = repr(error)
            _logger.exception("outbox relay", extra={"failed_turns": status.failed_turns})
            return None
        if turn.taken:
            outbox_relay_seconds.labels(self._service).observe(time.perf_counter() - began)
        if turn.published:
            if status.failed_turns:
                _logger.info("outbox relay: publishing again")
            status.failed_turns = 0
            status.relayed += len(turn.published)
            status.last_relayed_at = datetime.now(UTC)
            outbox_relayed_total.labels(self._service).inc(len(turn.published))
        if turn.failed:
            if not turn.published:
                status.failed_turns += 1
            row, refusal = turn.failed[0]
            status.last_error = str(refusal)
            _logger.error(
                "outbox relay: %d of %d not published: %s",
                len(turn.failed),
                turn.taken,
                refusal,
                extra={
                    "event_id": row.event_id,
                    "subject": row.subject,
                    "attempts": row.attempts + 1,
                    "failed_turns": status.failed_turns,
                },
            )
        elif turn.mine and not turn.waiting:
            status.failed_turns = 0
            status.last_error = None
        for row, ack, acknowledged in turn.published:
            self._record(row, ack, acknowledged)
        return turn

    async def _turn(self, limit: int) -> _Turn:
        turn = _Turn()
        with translate_errors("relay"):
            async with self._database.engine.begin() as connection:
                # A statement of its own: the next one's snapshot must be taken under the lock, or
                # it would show as unpublished what the former holder has just marked.
                if not await connection.scalar(_LOCK):
                    turn.mine = False
                    return turn
                limits = {"limit": limit, "retries": min(limit, _RETRIES)}
                rows = [_Row(*row) for row in await connection.execute(_DUE, limits)]
                turn.taken = len(rows)
                if rows:
                    await self._publish(rows, turn)
                    await self._mark(connection, turn)
                elif self._status.failed_turns:
                    turn.waiting = bool(await connection.scalar(_WAITING))
        return turn

    async def _publish(self, rows: Sequence[_Row], turn: _Turn) -> None:
        held: set[str] = set()
        for wave in _waves(rows):
            ready = [row for row in wave if row.key not in held]
            try:
                results = await self._publisher.publish_all([_message(row) for row in ready])
            except MessageBusError as error:
                results = [error] * len(ready)
            now = datetime.now(UTC)
            for row, result in zip(ready, results, strict=True):
                if isinstance(result, MessageBusError):
                    turn.failed.append((row, result))
                    if row.key is not None:
                        held.add(row.key)
                else:
                    turn.published.append((row, result, now))

    async def _mark(self, connection: AsyncConnection, turn: _Turn) -> None:
        if turn.published:
            ids = [row.id for row, _, _ in turn.published]
            sequences = [ack.sequence for _, ack, _ in turn.published]
            await connection.execute(_PUBLISHED, {"ids": ids, "sequences": sequences})
            if self._status.failed_turns >= _OUTAGE_TURNS:
                # The bus is back: what failed while it was away need not sit out its delay.
                await connection.execute(_DUE_AGAIN)
        if turn.failed:
            ids = [row.id for row, _ in turn.failed]
            errors = [str(error) for _, error in turn.failed]
            await connection.execute(_FAILED, {"ids": ids, "errors": errors})

    def _record(self, row: _Row, ack: PubAck, acknowledged: datetime) -> None:
        """Record the span from the commit's side of the outbox to the stream's acknowledgement."""
        parent = _parent(row)
        trace = _span(row, parent)
        context = Context.start(
            correlation_id=row.headers.get("X-Correlation-ID"),
            trace=trace,
            tenant_id=row.headers.get("Glam-Tenant"),
            service=self._service,
        )
        with bind(context):
            record_span(
                name=f"publish {row.subject}",
                kind="producer",
                context=trace,
                parent_span_id=parent.span_id if parent else None,
                started=row.created_at,
                duration_seconds=max(0.0, (acknowledged - row.created_at).total_seconds()),
                event_id=row.event_id,
                stream=ack.stream,
                sequence=ack.sequence,
                duplicate=ack.duplicate,
                attempts=row.attempts + 1,
            )


def _waves(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Split into waves that hold a key once each, in the order of ids within and between them."""
    waves: list[list[_Row]] = []
    position: dict[str, int] = {}
    for row in rows:
        wave = 0
        if row.key is not None:
            wave = position.get(row.key, 0)
            position[row.key] = wave + 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(row)
    return waves


def _message(row: _Row) -> OutgoingMessage:
    trace = _span(row, _parent(row))
    headers = {**row.headers, "traceparent": trace.traceparent}
    return OutgoingMessage(row.subject, row.body, headers, row.message_id)


def _parent(row: _Row) -> TraceContext | None:
    return TraceContext.parse(row.headers.get("traceparent"), row.headers.get("tracestate"))


def _span(row: _Row, parent: TraceContext | None) -> TraceContext:
    """The producer's span; the same on every attempt, so that the consumer's parent is recorded."""
    seed = blake2b(row.event_id.encode(), digest_size=24).hexdigest()
    if parent is None:
        return TraceContext(trace_id=seed[:32], span_id=seed[32:])
    return replace(parent, span_id=seed[32:])


def _pause_seconds(failed_turns: int) -> float:
    return min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(failed_turns - 1, 10))
