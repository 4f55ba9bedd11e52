"""The courier: takes messages that are due to their streams, and says what became of them.

It knows two ways. An atomic batch is stored whole or not at all, in the order of its messages, so
one batch may hold many messages of one key. A window of single messages is sent without waiting
for each acknowledgement; of one key it holds one message, for an earlier one may yet fail. What a
batch cannot do (it is refused as a whole for a single message that the stream has already) is done
by a window.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from shared.delivery.relay.fences import Fence, Fences, StreamFacts, fence_is_busy, lost_fence
from shared.errors import MessageBusError
from shared.messaging import PubAck
from shared.messaging.publishing.batches import domain_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence

    from shared.delivery.relay.pending import Pending
    from shared.messaging import OutgoingMessage

__all__ = ["Courier", "Publishes", "PublishesAtomically", "Receipt"]

# The server keeps a batch in memory until it is whole (ADR-50); and so much of it is sent anew when
# it is refused.
_BATCH_MESSAGES = 1_000
_BATCH_BYTES = 4 * 1024 * 1024

# How often a message that names a fence is sent again, while the replicas store the one before.
_BUSY_RETRIES = 100
_BUSY_SECONDS = 0.005

_Result: TypeAlias = "PubAck | MessageBusError"
_Streams: TypeAlias = "dict[str, StreamFacts | MessageBusError | None]"


class Publishes(Protocol):
    """What the relay needs of a publisher; `shared.messaging.Publisher` has it."""

    async def publish_all(
        self, messages: Sequence[OutgoingMessage]
    ) -> list[PubAck | MessageBusError]:
        """Publish in order; return each message's acknowledgement or error in its place."""
        ...


@runtime_checkable
class PublishesAtomically(Publishes, Protocol):
    """What it can make use of besides."""

    async def publish_atomic(
        self, messages: Sequence[OutgoingMessage]
    ) -> list[PubAck | MessageBusError]:
        """Publish as one batch, stored whole or not at all; outcomes as of `publish_all`."""
        ...


@dataclass(slots=True)
class Receipt:
    """What became of the messages.

    ``refused`` are those a stream did not take since another relay has fenced ours out, with the
    stream's words. They are not counted as failed: they are the other relay's now.
    """

    published: list[tuple[Pending, PubAck, datetime]] = field(default_factory=list)
    failed: list[tuple[Pending, MessageBusError]] = field(default_factory=list)
    refused: list[tuple[Pending, MessageBusError]] = field(default_factory=list)
    held: set[str] = field(default_factory=set)

    def note(self, row: Pending, result: _Result, now: datetime) -> None:
        """Note one outcome; what is not published holds back the later ones of its key."""
        if isinstance(result, PubAck):  # an error's kind is abstract, and dear to ask for
            self.published.append((row, result, now))
            return
        (self.refused if lost_fence(result) else self.failed).append((row, result))
        if row.key is not None:
            self.held.add(row.key)


class Courier:
    """Publishes what is due, keeping the order of each key.

    Args:
        publisher: by which to send; batches only if it `PublishesAtomically`.
        fences: those of the outbox; None sends without.
        atomic: send batches where the stream takes them.
        spans: name the producer's span in what is sent.
    """

    def __init__(
        self,
        publisher: Publishes,
        *,
        fences: Fences | None = None,
        atomic: bool = True,
        spans: bool = True,
    ) -> None:
        self._spans = spans
        self._publisher = publisher
        self._atomic = publisher if isinstance(publisher, PublishesAtomically) and atomic else None
        self._fences = fences

    async def carry(self, rows: Sequence[Pending]) -> Receipt:
        """Publish the rows, which come in the order of their ids. Raises nothing of the bus."""
        receipt = Receipt()
        streams = await self._streams(rows)
        for leg in _legs(rows, streams):
            groups = self._by_stream(leg, streams, receipt)
            # All of them to their end: what one still sends must not meet the next turn's messages.
            ends = await asyncio.gather(
                *(self._to_stream(group, receipt) for group in groups), return_exceptions=True
            )
            for end in ends:
                if end is not None:
                    raise end
        return receipt

    async def _streams(self, rows: Sequence[Pending]) -> _Streams:
        """Look up the stream of each subject; without fences nobody asks."""
        found: _Streams = {}
        for subject in dict.fromkeys(row.subject for row in rows) if self._fences else ():
            try:
                found[subject] = await self._fences.facts(subject) if self._fences else None
            except MessageBusError as error:
                found[subject] = error
        return found

    def _by_stream(
        self, rows: Sequence[Pending], streams: _Streams, receipt: Receipt
    ) -> list[tuple[StreamFacts | None, list[Pending]]]:
        groups: dict[str | None, tuple[StreamFacts | None, list[Pending]]] = {}
        for row in rows:
            facts = streams.get(row.subject)
            if isinstance(facts, MessageBusError):
                receipt.note(row, facts, datetime.now(UTC))
                continue
            name = facts.name if facts is not None else None
            groups.setdefault(name, (facts, []))[1].append(row)
        return list(groups.values())

    async def _to_stream(
        self, group: tuple[StreamFacts | None, list[Pending]], receipt: Receipt
    ) -> None:
        facts, rows = group
        rows = [row for row in rows if row.key not in receipt.held]
        fences: Mapping[int, Fence] = {}
        if facts is not None and self._fences is not None:
            try:
                leases = {(row.partition, row.token) for row in rows}
                fences = await self._fences.raise_for(facts, leases)
            except MessageBusError as error:
                self._fences.forget(facts.name)
                for row in rows:
                    receipt.note(row, error, datetime.now(UTC))
                return
        # What failed before may fail again, and would have a whole batch refused.
        fresh = [row for row in rows if row.attempts == 0]
        tried = [row for row in rows if row.attempts > 0]
        if facts is not None and facts.atomic and self._atomic is not None:
            for batch in _batches(fresh):
                await self._batch(facts, batch, fences, receipt)
        else:
            await self._windows(facts, fresh, fences, receipt)
        await self._windows(facts, tried, fences, receipt)
        if receipt.refused and facts is not None and self._fences is not None:
            self._fences.forget(facts.name)

    async def _batch(
        self,
        facts: StreamFacts,
        rows: Sequence[Pending],
        fences: Mapping[int, Fence],
        receipt: Receipt,
    ) -> None:
        """Send one batch; the first message of each partition names its fence for all of them."""
        rows = [row for row in rows if row.key not in receipt.held]
        if len(rows) < 2 or self._atomic is None:  # noqa: PLR2004 - one needs no batch
            await self._windows(facts, rows, fences, receipt)
            return
        unnamed = dict(fences)
        messages = [
            row.outgoing(unnamed.pop(row.partition, _NONE).headers, spans=self._spans)
            for row in rows
        ]
        for _ in range(_BUSY_RETRIES):
            results = await _attempt(self._atomic.publish_atomic(messages), len(rows))
            first = results[0]
            if not (isinstance(first, MessageBusError) and fence_is_busy(first)):
                break
            await asyncio.sleep(_BUSY_SECONDS)
        if (
            isinstance(first, MessageBusError)
            and first.details.get("batch_refused")
            and not lost_fence(first)
        ):
            await self._windows(facts, rows, fences, receipt)
            return
        now = datetime.now(UTC)
        for row, result in zip(rows, results, strict=True):
            receipt.note(row, result, now)

    async def _windows(
        self,
        facts: StreamFacts | None,
        rows: Sequence[Pending],
        fences: Mapping[int, Fence],
        receipt: Receipt,
    ) -> None:
        # A replicated stream takes one message at a time that names the same fence.
        single = facts is not None and facts.replicated and facts.fenced
        for wave in _waves(rows):
            ready = [row for row in wave if row.key not in receipt.held]
            for part in [[row] for row in ready] if single else [ready]:
                messages = [
                    row.outgoing(fences.get(row.partition, _NONE).headers, spans=self._spans)
                    for row in part
                ]
                for _ in range(_BUSY_RETRIES if single else 1):
                    results = await _attempt(self._publisher.publish_all(messages), len(part))
                    if not any(
                        isinstance(r, MessageBusError) and fence_is_busy(r) for r in results
                    ):
                        break
                    await asyncio.sleep(_BUSY_SECONDS)
                now = datetime.now(UTC)
                for row, result in zip(part, results, strict=True):
                    receipt.note(row, result, now)


_NONE = Fence({})


async def _attempt(publishing: Awaitable[list[_Result]], count: int) -> list[_Result]:
    try:
        return await publishing
    except MessageBusError as error:
        return [error] * count


def _legs(rows: Sequence[Pending], streams: _Streams) -> list[list[Pending]]:
    """Split so that within a leg all messages of a key go to one stream.

    The subject's domain stands for a stream that is not known. Streams are published to side by
    side; a key that goes to several is not to overtake itself.
    """
    legs: list[list[Pending]] = []
    last: dict[str, tuple[int, str]] = {}
    for row in rows:
        leg = 0
        if row.key is not None:
            facts = streams.get(row.subject)
            name = facts.name if isinstance(facts, StreamFacts) else domain_of(row.subject)
            leg, before = last.get(row.key, (0, name))
            leg += before != name
            last[row.key] = leg, name
        if leg == len(legs):
            legs.append([])
        legs[leg].append(row)
    return legs


def _waves(rows: Sequence[Pending]) -> list[list[Pending]]:
    """Split into waves that hold a key once each, in the order of ids within and between them."""
    waves: list[list[Pending]] = []
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


def _batches(rows: Iterable[Pending]) -> list[list[Pending]]:
    """Cut into batches that the server takes and keeps in memory gladly.

    The publisher sends each as one, so there is one for each domain.
    """
    batches: list[list[Pending]] = []
    open_batches: dict[str, tuple[list[Pending], int]] = {}
    for row in rows:
        together = domain_of(row.subject)
        batch, size = open_batches.get(together, ([], 0))
        size += len(row.body)
        if not batch or len(batch) == _BATCH_MESSAGES or size > _BATCH_BYTES:
            batch, size = [], len(row.body)
            batches.append(batch)
        batch.append(row)
        open_batches[together] = batch, size
    return batches
