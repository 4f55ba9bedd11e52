"""Messages that could not be handled, kept whole until somebody replays or discards them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import nats.errors

from shared.errors import (
    ConflictError,
    GlamBaseError,
    MessageBusError,
    NotFoundError,
    ValidationError,
)
from shared.events.headers import MESSAGE_ID
from shared.messaging.connection.errors import bus_errors
from shared.messaging.consuming.delivery import KEPT_ID, REPLAY_FOR, Delivery
from shared.messaging.dead_letters.audit import Action, Audit, AuditPage
from shared.messaging.dead_letters.dead_letter import (
    DeadLetter,
    DeadLetterHead,
    head_of,
    is_servers,
    kept_stream,
    read_headers,
    whole,
    write_headers,
)
from shared.messaging.dead_letters.direct_get import read_messages
from shared.messaging.dead_letters.edit import (
    BodyChange,
    DeadLetterEdit,
    check_edited,
    differences,
    edit_digest,
)
from shared.messaging.dead_letters.filter import DeadLetterFilter, DeadLetterGroup, Grouping
from shared.messaging.dead_letters.header_scan import scan_headers
from shared.messaging.publisher import OutgoingMessage, PubAck, Publisher
from shared.messaging.publishing.claim_check import CLAIM, ClaimCheck, ClaimLostError, resolve
from shared.messaging.streams.facts import StoredMessage
from shared.messaging.streams.store import StreamStore
from shared.resilience.backoff import set_within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
    from typing import Any

    from shared.events import Contract
    from shared.messaging.connection.connection import Connection

_logger = logging.getLogger(__name__)

STREAM = "DEAD_LETTERS"
SUBJECTS = "dlq.>"


_PAGE = 500
_ALL = DeadLetterFilter()


@dataclass(frozen=True, slots=True)
class DeadLetterPage:
    """A page of dead letters without their bodies, oldest first.

    `next_after` is where to read on, None when there are no more.
    """

    letters: list[DeadLetterHead]
    next_after: int | None


@dataclass(frozen=True, slots=True)
class DeadLetterOutcome:
    """What became of one of many: `error` is None if it was done, or could be (a dry run).

    `ack` is where a replayed dead letter went.
    """

    letter: DeadLetterHead
    ack: PubAck | None = None
    error: GlamBaseError | None = None


class DeadLetters:
    """The dead letters of all services, in the stream DEAD_LETTERS for 30 days.

    What is done with them is kept in the stream DEAD_LETTERS_AUDIT for as long, with the dead
    letters themselves.

    >>> letters = DeadLetters(bus)
    >>> await letters.store(delivery, durable="till-book", service="till", reason="no such invoice")
    PubAck(stream='DEAD_LETTERS', sequence=1, duplicate=False)
    >>> page = await letters.page(DeadLetterFilter(subject="evt.invoice.>"))
    >>> [(letter.sequence, letter.durable, letter.reason) for letter in page.letters]
    [(1, 'till-book', 'no such invoice')]
    >>> await letters.replay(1, reason="the invoice is there now")
    PubAck(stream='INVOICE', sequence=2, duplicate=False)
    >>> await letters.get(1)
    NotFoundError: there is no dead letter 1

    Args:
        bus: where they are.
        contracts: what an edited dead letter has to fit, beside the contracts that the platform
            declares.
    """

    def __init__(self, bus: Connection, *, contracts: Iterable[Contract[Any]] = ()) -> None:
        self._bus = bus
        # A dead letter may use the room that the publisher of the message had to leave.
        self._publisher = Publisher(bus, headroom_bytes=0)
        self._streams = StreamStore(bus)
        self._audit = Audit(bus, self._publisher)
        self._contracts = tuple(contracts)

    async def store(
        self,
        delivery: Delivery,
        *,
        durable: str,
        service: str,
        reason: str,
        error: BaseException | None = None,
        version: str | None = None,
    ) -> PubAck:
        """Keep a message. On return the server has it; storing it twice keeps it once.

        Raises:
            MessageBusError: It is not known to be kept.
        """
        head = head_of(
            delivery, durable=durable, service=service, version=version, reason=reason, error=error
        )
        stored_at = delivery.published_at.timestamp()
        message = OutgoingMessage(
            subject=f"dlq.{delivery.stream}.{durable}",
            body=delivery.body,
            headers=write_headers(head),
            message_id=f"dlq:{delivery.stream}:{durable}:{delivery.sequence}:{stored_at}",
        )
        return await self._publish(message)

    # -- reading -----------------------------------------------------------------------------

    async def list(
        self, *, limit: int = 100, after: int = 0, where: DeadLetterFilter = _ALL
    ) -> list[DeadLetter]:
        """Return at most `limit` dead letters with a sequence above `after`, oldest first, whole.

        Bodies may be large; `page` and `scan` leave them where they are.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        if where.is_empty:
            await self._ensure()
            request: dict[str, str | int] = {"seq": after + 1, "next_by_subj": SUBJECTS}
            request["batch"] = limit
            return [
                whole(read_headers(m), m.body)
                for m in await read_messages(self._bus, STREAM, request)
            ]
        page = await self.page(where, limit=limit, after=after)
        return [await self.get(letter.sequence) for letter in page.letters]

    async def page(
        self, where: DeadLetterFilter = _ALL, *, limit: int = 100, after: int = 0
    ) -> DeadLetterPage:
        """Return at most `limit` of the dead letters that are meant, without their bodies.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        letters: list[DeadLetterHead] = []
        async for letter in self.scan(where, after=after):
            if len(letters) == limit:
                return DeadLetterPage(letters, letters[-1].sequence if letters else after)
            letters.append(letter)
        return DeadLetterPage(letters, None)

    async def scan(
        self, where: DeadLetterFilter = _ALL, *, after: int = 0
    ) -> AsyncIterator[DeadLetterHead]:
        """Read all dead letters that are meant, oldest first, without their bodies.

        A few hundred are held at a time. What dies after the scan began is not in it.

        Raises:
            MessageBusError: JetStream does not answer; begin again after the last one that came.
        """
        await self._ensure()
        stream = await self._streams.stream(STREAM)
        last = stream.last_sequence if stream is not None else 0
        left = 1
        while left and after < last:
            page = await scan_headers(self._bus, STREAM, where.kept_under, after=after, limit=_PAGE)
            for stored in page.messages:
                after = stored.sequence
                if after > last:
                    return
                letter = read_headers(stored)
                if where.fits(letter):
                    yield letter
            left = page.left

    async def groups(self, where: DeadLetterFilter = _ALL) -> Sequence[DeadLetterGroup]:
        """Count the dead letters by handler and fingerprint, the largest group first.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        grouping = Grouping()
        async for letter in self.scan(where):
            grouping.add(letter)
        return grouping.groups()

    async def depths(self) -> dict[tuple[str, str], int]:
        """Count the dead letters of each stream and durable; the server knows without reading.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        await self._ensure()
        counts: dict[tuple[str, str], int] = {}
        for subject, count in (await self._streams.counts(STREAM, SUBJECTS)).items():
            _, stream, durable = subject.split(".", 2)
            counts[stream, durable] = count
        return counts

    async def get(self, sequence: int) -> DeadLetter:
        """Return one dead letter, whole.

        Raises:
            NotFoundError: There is none of that sequence.
            MessageBusError: JetStream does not answer.
        """
        await self._ensure()
        for m in await read_messages(self._bus, STREAM, {"seq": sequence}):
            return whole(read_headers(m), m.body)
        raise NotFoundError(
            f"there is no dead letter {sequence}", resource="dead letter", resource_id=sequence
        )

    async def resolved(self, letter: DeadLetter) -> DeadLetter:
        """Return the dead letter with its own body where it has a claim for it, else as it is.

        Raises:
            ConflictError: The body is not at the object store any more.
            MessageBusError: JetStream does not answer.
        """
        if CLAIM not in letter.headers:
            return letter
        claimed = Delivery(
            letter.subject,
            letter.body,
            letter.headers,
            letter.stream,
            letter.stream_sequence,
            letter.attempts,
            letter.at,
        )
        try:
            delivery = await resolve(self._bus, claimed)
        except ClaimLostError as error:
            raise ConflictError(f"dead letter {letter.sequence}: {error}") from error
        return replace(
            letter, body=delivery.body, headers=delivery.headers, size_bytes=len(delivery.body)
        )

    # -- deciding ----------------------------------------------------------------------------

    async def replay(
        self,
        sequence: int,
        *,
        edit: DeadLetterEdit | None = None,
        actor: str | None = None,
        reason: str = "",
    ) -> PubAck:
        """Publish a dead letter to its subject again, write that down, then remove it.

        Body and headers are those of the message, under a fresh `Nats-Msg-Id`, since the first one
        may still be in the stream's dedupe window. The event id inside is the same, so a handler
        whose effect was committed after all passes it over by its inbox. Only the durable that
        failed handles it: other subscribers of this package pass it over, and consumers of other
        make see it again.

        A crash between the steps leaves the dead letter listed. Its second replay publishes nothing
        if the first was written down, and is else deduped inside the stream's window and by the
        handler's inbox after that.

        Args:
            sequence: which one.
            edit: what to change in its body first.
            actor: who does it; the name of the bus unless given.
            reason: why.

        Raises:
            NotFoundError: There is none of that sequence.
            ValidationError: The edited body would be another event, or is not valid.
            ConflictError: It was replayed before with another body, but not removed; or its
                body is not at the object store any more.
            MessageBusError: It is not known to be published; then it is not removed.
        """
        letter = await self.get(sequence)
        body, changes = await self._edited(letter, edit)
        digest = edit_digest(body) if changes else None
        ack = await self._replayed_before(letter, digest)
        if ack is None:
            ack = await self._publisher.publish(await self._again(letter, body, digest))
            await self._audit.write(
                Action.REPLAYED,
                letter,
                actor=actor or self._bus.name,
                reason=reason,
                result=ack,
                edited=digest,
                changes=changes,
            )
        await self._remove(sequence)
        _logger.info(
            "dead letter replayed",
            extra={"dead_letter": sequence, "subject": letter.subject, "durable": letter.durable},
        )
        return ack

    async def discard(self, sequence: int, reason: str, *, actor: str | None = None) -> None:
        """Remove a dead letter; the audit keeps it, and `reason`, for 30 days more.

        Raises:
            NotFoundError: There is none of that sequence.
            ValidationError: No reason is given.
            MessageBusError: JetStream does not answer.
        """
        _check_reason(reason)
        letter = await self.get(sequence)
        kept = await self._kept_alive(letter)
        await self._audit.write(
            Action.DISCARDED, kept, actor=actor or self._bus.name, reason=reason
        )
        await self._remove(sequence)
        _logger.warning(
            "dead letter discarded: %s",
            reason,
            extra={"dead_letter": sequence, "subject": letter.subject, "durable": letter.durable},
        )

    async def restore(self, record: int, *, actor: str | None = None, reason: str = "") -> int:
        """List the dead letter of an audit record again; return its new number.

        Raises:
            NotFoundError: There is no such record.
            MessageBusError: It is not known to be kept.
        """
        letter = await self._audit.letter(record)
        ack = await self._publish(
            OutgoingMessage(
                subject=f"dlq.{letter.stream}.{letter.durable}",
                body=letter.body,
                headers=write_headers(letter),
                message_id=f"restore:{record}:{letter.at.timestamp()}",
            )
        )
        await self._audit.write(
            Action.RESTORED, letter, actor=actor or self._bus.name, reason=reason, result=ack
        )
        return ack.sequence

    async def replay_all(
        self,
        where: DeadLetterFilter | Sequence[int],
        *,
        edit: DeadLetterEdit | None = None,
        dry_run: bool = False,
        rate_per_second: float | None = None,
        limit: int | None = None,
        actor: str | None = None,
        reason: str = "",
        stop: asyncio.Event | None = None,
    ) -> AsyncIterator[DeadLetterOutcome]:
        """Replay the dead letters that are meant, one after another, oldest first.

        What fails again while this goes on is not replayed again. What cannot be replayed
        is told with its error and stays; the others go on.

        Args:
            where: a filter, or the sequences.
            edit: what to change in each body; only values for more than one.
            dry_run: replay nothing; an edit is tried out on each.
            rate_per_second: so many at most.
            limit: so many at most in all.
            actor: who does it; the name of the bus unless given.
            reason: why.
            stop: set it to end between two dead letters; none is left half replayed.

        Raises:
            MessageBusError: The connection is lost; what was told is done, the rest is untouched.
        """

        async def one(letter: DeadLetterHead) -> PubAck | None:
            if not dry_run:
                return await self.replay(letter.sequence, edit=edit, actor=actor, reason=reason)
            if edit is not None:
                await self._edited(await self.get(letter.sequence), edit)
            return None

        pause = 0.0 if dry_run or not rate_per_second else 1 / rate_per_second
        done = 0
        async for chosen in self._chosen(where):
            if (limit is not None and done >= limit) or (stop is not None and stop.is_set()):
                return
            if done and pause and await _told_within(stop, pause):
                return
            yield await self._outcome(chosen, one)
            done += 1

    async def discard_all(
        self,
        where: DeadLetterFilter | Sequence[int],
        reason: str,
        *,
        dry_run: bool = False,
        limit: int | None = None,
        actor: str | None = None,
        stop: asyncio.Event | None = None,
    ) -> AsyncIterator[DeadLetterOutcome]:
        """Discard the dead letters that are meant; as `replay_all` otherwise.

        Raises:
            ValidationError: No reason is given.
            MessageBusError: The connection is lost; what was told is done, the rest is untouched.
        """
        _check_reason(reason)

        async def one(letter: DeadLetterHead) -> None:
            if not dry_run:
                await self.discard(letter.sequence, reason, actor=actor)

        done = 0
        async for chosen in self._chosen(where):
            if (limit is not None and done >= limit) or (stop is not None and stop.is_set()):
                return
            yield await self._outcome(chosen, one)
            done += 1

    async def audit(
        self, *, letter: int | None = None, limit: int = 100, after: int = 0
    ) -> AuditPage:
        """Return who did what, oldest first; of one dead letter, if its number is given.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        return await self._audit.page(letter=letter, after=after, limit=limit)

    async def audited(self, record: int) -> DeadLetter:
        """Return the dead letter of an audit record, whole.

        Raises:
            NotFoundError: There is no such record.
            MessageBusError: JetStream does not answer.
        """
        return await self._audit.letter(record)

    # -- steps -------------------------------------------------------------------------------

    async def _chosen(
        self, where: DeadLetterFilter | Sequence[int]
    ) -> AsyncIterator[DeadLetterHead | DeadLetterOutcome]:
        if isinstance(where, DeadLetterFilter):
            async for letter in self.scan(where):
                yield letter
            return
        for sequence in dict.fromkeys(where):
            try:
                yield await self.get(sequence)
            except NotFoundError as error:
                yield DeadLetterOutcome(_unknown(sequence), error=error)

    async def _outcome(
        self,
        chosen: DeadLetterHead | DeadLetterOutcome,
        act: Callable[[DeadLetterHead], Awaitable[PubAck | None]],
    ) -> DeadLetterOutcome:
        if isinstance(chosen, DeadLetterOutcome):
            return chosen
        try:
            return DeadLetterOutcome(chosen, ack=await act(chosen))
        except GlamBaseError as error:
            if isinstance(error, MessageBusError) and not self._bus.connected:
                raise
            return DeadLetterOutcome(chosen, error=error)

    async def _edited(
        self, letter: DeadLetter, edit: DeadLetterEdit | None
    ) -> tuple[bytes, tuple[BodyChange, ...]]:
        """Return the body to publish, and what was changed in it."""
        if edit is None:
            return letter.body, ()
        own = await self.resolved(letter) if edit.body is None else letter
        body = edit.applied_to(own.body)
        if CLAIM in letter.headers and edit.body is not None:
            # What it was may be lost for good; that is why somebody hands in a new one.
            own = replace(own, headers={n: v for n, v in own.headers.items() if n != CLAIM})
        check_edited(own, body, self._contracts)
        return body, differences(own.body, body)

    async def _again(self, letter: DeadLetter, body: bytes, digest: str | None) -> OutgoingMessage:
        """Return the message to publish; a body at the object store is left there anew.

        There it would go with its age, perhaps before the message does.
        """
        headers = {name: v for name, v in letter.headers.items() if not is_servers(name)}
        known_as = letter.headers.get(MESSAGE_ID) or f"{letter.stream}:{letter.stream_sequence}"
        claimed = headers.pop(CLAIM, None) is not None
        if claimed and digest is None:
            body = (await self.resolved(letter)).body
        message = OutgoingMessage(
            subject=letter.subject,
            body=body,
            headers={**headers, REPLAY_FOR: letter.durable, KEPT_ID: known_as},
            message_id=":".join(
                (
                    "replay",
                    str(letter.sequence),
                    str(letter.at.timestamp()),
                    *filter(None, [digest]),
                )
            ),
        )
        return await self._left(message) if claimed else message

    async def _left(self, message: OutgoingMessage) -> OutgoingMessage:
        return await ClaimCheck(self._bus, above_bytes=0).leave(message)

    async def _kept_alive(self, letter: DeadLetter) -> DeadLetter:
        """Return it with its body left at the object store anew, if that is where it is."""
        if CLAIM not in letter.headers:
            return letter
        try:
            own = await self.resolved(letter)
        except ConflictError:
            return letter  # lost already
        message = await self._left(OutgoingMessage(letter.subject, own.body, own.headers, ""))
        return replace(letter, body=message.body)

    async def _replayed_before(self, letter: DeadLetter, digest: str | None) -> PubAck | None:
        record = await self._audit.replay_of(letter)
        if record is None or record.result_stream is None or record.result_sequence is None:
            return None
        if record.edited != digest:
            raise ConflictError(
                f"dead letter {letter.sequence} was replayed before with another body, as "
                f"{record.result_sequence} of {record.result_stream}, but not removed: "
                "replay it with that body again, or discard it"
            )
        return PubAck(record.result_stream, record.result_sequence, duplicate=True)

    async def _publish(self, message: OutgoingMessage) -> PubAck:
        try:
            return await self._publisher.publish(message)
        except MessageBusError as error:
            if not isinstance(error.__cause__, nats.errors.NoRespondersError):
                raise
        # The stream is made by the first who needs it, and again if somebody deleted it.
        await self._ensure()
        return await self._publisher.publish(message)

    async def _ensure(self) -> None:
        await self._bus.ensure_stream_config(_STREAM_CONFIG)

    async def _remove(self, sequence: int) -> None:
        try:
            with bus_errors("delete", stream=STREAM):
                await self._bus.js.delete_msg(STREAM, sequence)
        except MessageBusError:
            # Somebody else removed it meanwhile?
            if await read_messages(self._bus, STREAM, {"seq": sequence}):
                raise


_STREAM_CONFIG = kept_stream(STREAM, SUBJECTS)


def _unknown(sequence: int) -> DeadLetterHead:
    return read_headers(StoredMessage(sequence, {}, datetime.now(UTC), 0))


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise ValidationError("a discard needs a reason", field="reason", value=reason)


async def _told_within(stop: asyncio.Event | None, seconds: float) -> bool:
    """Tell whether `stop` is set before the time is up."""
    if stop is None:
        await asyncio.sleep(seconds)
        return False
    return await set_within(stop, seconds)
