"""The sender: takes messages that are due to their streams, and says what became of them.

It knows two ways. An atomic batch is stored whole or not at all, in the order of its messages, so
one batch may hold many messages of one key. Single messages are sent without waiting for each
acknowledgement, but for those of one key, since an earlier one may yet fail. What a batch cannot do
(it is refused as a whole for a single message that the stream has already) is done one by one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from shared.delivery.relay.fences import (
    NO_FENCE,
    Fences,
    StreamFeatures,
    fence_is_busy,
    lost_fence,
)
from shared.errors import MessageBusError
from shared.messaging import PubAck
from shared.messaging.publishing.batches import domain_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shared.delivery.relay.fences import Fence
    from shared.delivery.relay.pending import Pending
    from shared.messaging import OutgoingMessage


# The server keeps a batch in memory until it is whole (ADR-50); and so much of it is sent anew when
# it is refused.
_BATCH_MESSAGES = 1_000
_BATCH_BYTES = 4 * 1024 * 1024

# How often a message that names a fence is sent again, while the replicas store the one before.
_BUSY_RETRIES = 100
_BUSY_SECONDS = 0.005

_Result: TypeAlias = "PubAck | MessageBusError"
_Streams: TypeAlias = "dict[str, StreamFeatures | MessageBusError | None]"


class Publishes(Protocol):
    """What the relay needs of a publisher; `shared.messaging.Publisher` has it."""

    async def publish_all(
        self, messages: Sequence[OutgoingMessage], *, keys: Sequence[str | None] | None = None
    ) -> list[PubAck | MessageBusError]:
        """Publish, those of one key in their order; return each one's acknowledgement or error.

        Once one of a key fails, none after it is sent, and their errors say ``held_back`` in their
        details.
        """
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

    def note(self, rows: Sequence[Pending], results: Iterable[_Result]) -> None:
        """Note outcomes; what is not published holds back the later ones of its key."""
        now = datetime.now(UTC)
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, PubAck):  # an error's kind is abstract, and expensive to ask for
                self.published.append((row, result, now))
            elif not result.details.get("held_back"):
                (self.refused if lost_fence(result) else self.failed).append((row, result))
                if row.key is not None:
                    self.held.add(row.key)

    def ready(self, rows: Sequence[Pending]) -> Sequence[Pending]:
        """Return the rows that nothing holds back."""
        return [row for row in rows if row.key not in self.held] if self.held else rows


class Sender:
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

    async def send(self, rows: Sequence[Pending]) -> Receipt:
        """Publish the rows, which come in the order of their ids. Raises nothing of the bus."""
        receipt = Receipt()
        streams = await self._streams(rows)
        for group in _rounds(rows, streams):
            by_stream: dict[str | None, list[Pending]] = {}
            for row in group:
                stream = streams.get(row.subject)
                if isinstance(stream, MessageBusError):
                    receipt.note([row], [stream])
                else:
                    by_stream.setdefault(stream.name if stream else None, []).append(row)
            sending = [
                self._to_stream(streams.get(part[0].subject), part, receipt)
                for part in by_stream.values()
            ]
            if len(sending) == 1:
                await sending[0]
                continue
            # All of them to their end: what one still sends must not meet the next turn's messages.
            for end in await asyncio.gather(*sending, return_exceptions=True):
                if end is not None:
                    raise end
        return receipt

    async def _streams(self, rows: Sequence[Pending]) -> _Streams:
        """Look up the stream of each subject; without fences nobody asks."""
        found: _Streams = {}
        if self._fences is not None:
            for row in rows:
                if row.subject not in found:
                    try:
                        found[row.subject] = await self._fences.features(row.subject)
                    except MessageBusError as error:
                        found[row.subject] = error
        return found

    async def _to_stream(
        self,
        stream: StreamFeatures | MessageBusError | None,
        rows: Sequence[Pending],
        receipt: Receipt,
    ) -> None:
        rows = receipt.ready(rows)
        if not isinstance(stream, StreamFeatures) or self._fences is None:
            await self._singly(rows, {}, receipt)
            return
        try:
            fences = await self._fences.raise_for(
                stream, {(row.partition, row.token) for row in rows}
            )
        except MessageBusError as error:
            self._fences.forget(stream.name)
            receipt.note(rows, [error] * len(rows))
            return
        if stream.atomic and self._atomic is not None:
            # What failed before may fail again, and would have a whole batch refused.
            for batch in _batches(row for row in rows if row.attempts == 0):
                one = len(batch) == 1  # which needs no batch
                if one or not await self._batch(self._atomic, batch, fences, receipt):
                    await self._singly(batch, fences, receipt, stream)
            rows = [row for row in rows if row.attempts > 0]
        await self._singly(rows, fences, receipt, stream)
        if receipt.refused:
            self._fences.forget(stream.name)

    async def _batch(
        self,
        publisher: PublishesAtomically,
        rows: Sequence[Pending],
        fences: Mapping[int, Fence],
        receipt: Receipt,
    ) -> bool:
        """Send one batch; the first message of each partition names its fence for all of them.

        False when they are to be sent one by one instead.
        """
        rows = receipt.ready(rows)
        if not rows:
            return True
        unnamed = dict(fences)
        messages = [
            row.message(unnamed.pop(row.partition, NO_FENCE).headers, spans=self._spans)
            for row in rows
        ]
        for _ in range(_BUSY_RETRIES):
            results = await publisher.publish_atomic(messages)
            if not fence_is_busy(results[0]):
                break
            await asyncio.sleep(_BUSY_SECONDS)
        # Not only the first: that may have failed by itself, in a middleware.
        if any(
            isinstance(r, MessageBusError) and r.details.get("batch_refused") and not lost_fence(r)
            for r in results
        ):
            return False
        receipt.note(rows, results)
        return True

    async def _singly(
        self,
        rows: Sequence[Pending],
        fences: Mapping[int, Fence],
        receipt: Receipt,
        stream: StreamFeatures | None = None,
    ) -> None:
        """Send the messages one by one; a replicated stream takes one at a time for each fence."""
        one_at_a_time = stream is not None and stream.replicated and stream.fenced
        for part in [[row] for row in rows] if one_at_a_time else [rows]:
            ready = receipt.ready(part)
            if not ready:
                continue
            messages = [
                row.message(fences.get(row.partition, NO_FENCE).headers, spans=self._spans)
                for row in ready
            ]
            keys = [row.key for row in ready] if len(ready) > 1 else None
            for _ in range(_BUSY_RETRIES):
                results = await self._publisher.publish_all(messages, keys=keys)
                if not (one_at_a_time and fence_is_busy(results[0])):
                    break
                await asyncio.sleep(_BUSY_SECONDS)
            receipt.note(ready, results)


def _rounds(rows: Sequence[Pending], streams: _Streams) -> list[list[Pending]]:
    """Split so that within a round all messages of a key go to one stream.

    Streams are published to side by side; a key that goes to several is not to overtake itself. Of
    a stream that is not known the subject's domain stands for it.
    """
    rounds: list[list[Pending]] = []
    last: dict[str, tuple[int, str]] = {}
    for row in rows:
        at = 0
        if row.key is not None:
            stream = streams.get(row.subject)
            name = stream.name if isinstance(stream, StreamFeatures) else domain_of(row.subject)
            at, before = last.get(row.key, (0, name))
            at += before != name
            last[row.key] = at, name
        if at == len(rounds):
            rounds.append([])
        rounds[at].append(row)
    return rounds


def _batches(rows: Iterable[Pending]) -> list[list[Pending]]:
    """Cut into batches of a size that the server takes.

    The publisher sends each as one, so there is one for each domain.
    """
    batches: list[list[Pending]] = []
    open_batches: dict[str, tuple[list[Pending], int]] = {}
    for row in rows:
        domain = domain_of(row.subject)
        batch, size = open_batches.get(domain, ([], 0))
        size += len(row.body)
        if not batch or len(batch) == _BATCH_MESSAGES or size > _BATCH_BYTES:
            batch, size = [], len(row.body)
            batches.append(batch)
        batch.append(row)
        open_batches[domain] = batch, size
    return batches
