"""The relay: publishes the committed messages of the outbox into their streams."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.delivery.outbox.status import Backlog, read_backlog
from shared.delivery.outbox.tables import PARTITIONS
from shared.delivery.relay.fences import Fences
from shared.delivery.relay.janitor import Janitor
from shared.delivery.relay.leases import LeasedOutbox
from shared.delivery.relay.listener import CommitListener
from shared.delivery.relay.pending import record_published
from shared.delivery.relay.sender import Publishes, Receipt, Sender
from shared.delivery.relay.uncancelled import uncancelled
from shared.errors import GlamBaseError
from shared.metrics import (
    outbox_backlog,
    outbox_oldest_age_seconds,
    outbox_partitions,
    outbox_relay_seconds,
    outbox_relayed_total,
)
from shared.resilience import backoff_seconds
from shared.resilience.backoff import set_within

if TYPE_CHECKING:
    from collections.abc import Collection

    from shared.config import DeliverySettings
    from shared.database import Database
    from shared.messaging import Bus

_logger = logging.getLogger(__name__)

# While nothing gets through, a few messages at growing intervals ask whether the bus is back.
_PROBE = 10
_RETRIES = 50
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0
_OUTAGE_TURNS = 3

# While commits follow one another, a turn waits so long for several: it costs the same for one.
_GATHER_SECONDS = 0.005

_MEASURE_EVERY_SECONDS = 5.0
_OTHERS_RETRY_SECONDS = 0.05
_OTHERS_RETRIES = 40
_LEAVE_SECONDS = 2.0


@dataclass(slots=True)
class RelayStatus:
    """How the relay of this process fares.

    ``partitions`` of the outbox are leased by it. ``failed_turns`` counts the turns in a row that
    got nothing through; ``last_error`` is None again once something gets through.
    """

    running: bool = False
    partitions: int = 0
    relayed: int = 0
    last_relayed_at: datetime | None = None
    failed_turns: int = 0
    last_error: str | None = None


@dataclass(slots=True)
class _Turn:
    """What one turn of the relay did.

    ``more``: there may be more due than was taken. ``waiting``: nothing was due, yet messages wait
    for another attempt.
    """

    partitions: frozenset[int]
    taken: int = 0
    more: bool = False
    waiting: bool = False
    receipt: Receipt = field(default_factory=Receipt)

    @property
    def nothing_published(self) -> bool:
        """Something was to be published, and nothing got through."""
        receipt = self.receipt
        return bool(receipt.failed or receipt.refused) and not receipt.published

    @property
    def outage(self) -> bool:
        """Nothing got through, not even what was never tried before."""
        return self.nothing_published and any(row.attempts == 0 for row, _ in self.receipt.failed)


class Relay:
    """Publishes what the outbox holds: at least once to the stream, which keeps it once.

    Every replica runs one. The outbox is split into partitions by the keys of its messages, and
    each replica leases its share of them: it renews the leases while it lives, gives up what is
    too much when another replica comes, and everything when it ends. A relay that dies or freezes
    loses its leases ``lease_seconds`` later, by the database's clock. A turn is: read what is due
    in our partitions in the order of ids, publish, mark in one statement. No transaction is open
    meanwhile.

    **Once.** A relay that dies between publishing and marking leaves messages that the next one
    publishes again. The stream drops them by their ``Nats-Msg-Id``, as long as its window for
    duplicates lasts (120 seconds by default). Beyond that the inbox of the subscriber does.

    **Order.** Messages of one key are published in the order of their ids, the next only when the
    stream has acknowledged the one before, or in one batch that is stored whole or not at all. A
    message that fails holds back the later ones of its key, and nothing else. Messages without a
    key are published in any order.

    **Fences.** A relay that froze with messages in flight does not know, when it goes
    on, that another one has published them since. The stream refuses what it sends then, if it was
    given the ``bus`` and the server is 2.12 or newer (see `shared.delivery.relay.fences`), and the
    database what it writes.

    **Outages.** Neither of the database nor of the bus ends ``run``. They are logged and shown in
    ``status``; what is committed waits, and goes out when both are back.

    Args:
        database: whose outbox.
        publisher: into which bus.
        service: the service, for logs, spans and metrics.
        settings: batch, poll interval, lease, retention.
        bus: the connection of the publisher; without it late relays are not refused by the streams,
            and nothing is published in batches.
        external: streams that somebody else looks after, and that are left as they are.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publishes,
        *,
        service: str,
        settings: DeliverySettings,
        bus: Bus | None = None,
        external: Collection[str] = (),
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._service = service
        self._settings = settings
        self._bus = bus
        self._external = external
        self._renewal_seconds = settings.lease_seconds / 3
        self._janitor = Janitor(database, settings)
        self._listener = CommitListener(database, self.wake, connected=self._return)
        self._outbox = LeasedOutbox(database, lease_seconds=settings.lease_seconds)
        self._sender: Sender | None = None
        self._woken = asyncio.Event()
        self._returned = asyncio.Event()
        self._one_turn = asyncio.Lock()
        self._measured = float("-inf")
        self._renewed = float("-inf")
        self._partitions: frozenset[int] = frozenset()
        self._busy = PARTITIONS
        self._status = RelayStatus()

    @property
    def status(self) -> RelayStatus:
        """How it fares now; a copy."""
        return replace(self._status)

    def wake(self, *_: object) -> None:
        """Tell that there is something to publish. Costs nothing; may be said too often.

        Whatever it is called with, as by a notification of PostgreSQL, is passed over.
        """
        self._woken.set()

    def _return(self) -> None:
        """Tell that the database or the bus is back: no pause is waited out."""
        self._returned.set()
        self._woken.set()

    async def run(self) -> None:
        """Relay until cancelled, listening for commits elsewhere and cleaning up beside."""
        self._status.running = True
        self._renewed = float("-inf")
        forget = self._bus.on_connection(self._return) if self._bus is not None else None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._relay(), name=f"{self._service} outbox relay")
                tasks.create_task(self._janitor.run(), name=f"{self._service} outbox janitor")
                if self._settings.notify:
                    tasks.create_task(self._listener.run(), name=f"{self._service} outbox listener")
        finally:
            self._status.running = False
            if forget is not None:
                forget()
            await self._leave()

    async def drain(self) -> bool:
        """Publish what is due now, whether or not ``run`` is running.

        If it is not, all partitions that nobody holds are leased for this, and given up again.

        Returns:
            True when all of it is published. False when the database or the bus did not let it, or
            when another replica's relay is at work and goes on; what is left stays in the outbox.
        """
        try:
            return await self._drain()
        finally:
            if not self._status.running:
                await self._leave()

    async def _drain(self) -> bool:
        complete = True
        waited = 0
        while waited < _OTHERS_RETRIES:
            turn = await self._turn_or_none(self._settings.batch)
            if turn is None or turn.nothing_published:
                return False
            complete = complete and not turn.receipt.failed
            if turn.taken:
                continue
            if not complete or len(turn.partitions) == PARTITIONS:
                return complete
            try:
                if not (await self.backlog()).count:
                    return True
            except GlamBaseError:
                return False
            waited += 1
            self._renewed = float("-inf")
            await asyncio.sleep(_OTHERS_RETRY_SECONDS)
        return False

    async def backlog(self) -> Backlog:
        """Count what is due and not yet published, and the age of the oldest in seconds.

        Raises:
            DatabaseError: the database is away.
        """
        backlog = await read_backlog(self._database)
        self._show(backlog)
        return backlog

    def _show(self, backlog: Backlog) -> None:
        outbox_backlog.labels(self._service).set(backlog.count)
        outbox_oldest_age_seconds.labels(self._service).set(backlog.oldest_age_seconds)

    async def _relay(self) -> None:
        while True:
            # Before the turn: what is committed during it wakes the next one.
            self._woken.clear()
            self._returned.clear()
            stalled = self._status.failed_turns > 0
            limit = min(_PROBE, self._settings.batch) if stalled else self._settings.batch
            turn = await self._turn_or_none(limit)
            if turn is None or turn.outage:
                # Not cut short by wake(), since commits go on while nothing gets through; but by
                # a connection that is there again.
                await set_within(self._returned, _pause_seconds(self._status.failed_turns))
            elif turn.nothing_published:
                await set_within(self._woken, _pause_seconds(self._status.failed_turns))
            elif not turn.more:
                await self._measure()
                await set_within(
                    self._woken, min(self._settings.poll_seconds, self._renewal_seconds)
                )
                if turn.taken:
                    await asyncio.sleep(_GATHER_SECONDS)

    async def _measure(self) -> None:
        if time.monotonic() - self._measured < _MEASURE_EVERY_SECONDS:
            return
        self._measured = time.monotonic()
        try:
            # Over the relay's own connection: the pool may be in full use by what fills the outbox.
            async with self._one_turn:
                with uncancelled():
                    self._show(await self._outbox.backlog())
        except GlamBaseError as error:
            _logger.warning("outbox backlog unknown: %s", error)
        except Exception:
            _logger.exception("outbox backlog unknown")

    async def _turn_or_none(self, limit: int) -> _Turn | None:
        """Take one turn; None when it failed as a whole. Log what happened, note it in `status`."""
        status = self._status
        began = time.perf_counter()
        try:
            async with self._one_turn:
                with uncancelled():
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
        receipt = turn.receipt
        if turn.taken:
            outbox_relay_seconds.labels(self._service).observe(time.perf_counter() - began)
        if receipt.published:
            if status.failed_turns:
                _logger.info("outbox relay: publishing again")
            status.failed_turns = 0
            status.relayed += len(receipt.published)
            status.last_relayed_at = datetime.now(UTC)
            outbox_relayed_total.labels(self._service).inc(len(receipt.published))
        if turn.nothing_published:
            status.failed_turns += 1
        if receipt.failed:
            row, refusal = receipt.failed[0]
            status.last_error = str(refusal)
            _logger.error(
                "outbox relay: %d of %d not published: %s",
                len(receipt.failed),
                turn.taken,
                refusal,
                extra={
                    "event_id": row.event_id,
                    "subject": row.subject,
                    "attempts": row.attempts + 1,
                    "failed_turns": status.failed_turns,
                },
            )
        elif not receipt.refused and not turn.waiting:
            status.failed_turns = 0
            status.last_error = None
        if self._settings.spans and receipt.published:
            record_published(receipt.published, service=self._service)
        return turn

    async def _turn(self, limit: int) -> _Turn:
        await self._renew()
        each = max(1, -(-limit // self._busy))
        rows = await self._outbox.due(each, min(each, _RETRIES))
        turn = _Turn(self._partitions, taken=len(rows))
        if rows:
            sender = self._sender or await self._new_sender()
            turn.receipt = await sender.send(rows)
            await self._mark(turn.receipt)
            # The next turn is shared among the partitions that have more.
            counts = Counter(row.partition for row in rows)
            full = sum(count >= each for count in counts.values())
            self._busy = full or max(len(self._partitions), 1)
            turn.more = full > 0
        elif self._status.failed_turns:
            turn.waiting = await self._outbox.waiting()
        return turn

    async def _mark(self, receipt: Receipt) -> None:
        if lost := receipt.refused:
            self._renewed = float("-inf")
            _logger.warning(
                "outbox relay: %d messages are another relay's by now: %s",
                len(lost),
                lost[0][1],
                extra={"event_id": lost[0][0].event_id, "subject": lost[0][0].subject},
            )
        sent = len(receipt.published) + len(receipt.failed)
        if not sent:
            return
        marked = await self._outbox.mark(receipt)
        if marked < sent:
            self._renewed = float("-inf")
            _logger.warning(
                "outbox relay: %d messages are not marked, their lease is another relay's by now",
                sent - marked,
            )
        if receipt.published and self._status.failed_turns >= _OUTAGE_TURNS:
            # The bus is back: what failed while it was away need not sit out its delay.
            await self._outbox.due_again()

    async def _renew(self) -> None:
        now = time.monotonic()
        if now - self._renewed < self._renewal_seconds:
            return
        held = await self._outbox.renew(share=self._status.running)
        self._renewed = now
        if held != self._partitions:
            _logger.info("outbox relay: partitions %s", sorted(held) or "none")
        self._partitions = held
        self._status.partitions = len(held)
        outbox_partitions.labels(self._service).set(len(held))

    async def _leave(self) -> None:
        """Give up what is leased; whether or not that succeeds, hold it no longer."""
        if self._partitions:
            self._partitions = frozenset()
            self._status.partitions = 0
            outbox_partitions.labels(self._service).set(0)
            try:
                async with asyncio.timeout(_LEAVE_SECONDS), self._one_turn:
                    await self._outbox.leave()
            except (GlamBaseError, TimeoutError) as error:
                _logger.warning("outbox relay: the leases are left to expire: %s", error)
        self._renewed = float("-inf")
        self._outbox.close()

    async def _new_sender(self) -> Sender:
        fences = None
        if self._bus is not None:
            outbox = await self._outbox.name()
            fences = Fences(
                self._bus, outbox=outbox, owner=self._outbox.owner, external=self._external
            )
        self._sender = Sender(
            self._publisher,
            fences=fences,
            atomic=self._settings.atomic == "auto",
            spans=self._settings.spans,
        )
        return self._sender


def _pause_seconds(failed_turns: int) -> float:
    return backoff_seconds(failed_turns, first=_FIRST_PAUSE_SECONDS, longest=_LONGEST_PAUSE_SECONDS)
