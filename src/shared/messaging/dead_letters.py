"""What could not be handled, kept whole until somebody decides."""

from __future__ import annotations

import hashlib
import logging
import traceback
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import nats.errors
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from pydantic_core import to_json

from shared.errors import MessageBusError, NotFoundError
from shared.messaging._gate import API_TIMEOUT_SECONDS, translated
from shared.messaging.outgoing import OutgoingMessage, PubAck, Publisher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.msg import Msg

    from shared.messaging.bus import Bus
    from shared.messaging.delivery import Delivery

_logger = logging.getLogger(__name__)

STREAM = "DEAD_LETTERS"
SUBJECTS = "dlq.>"
MAX_AGE_SECONDS = 30 * 24 * 60 * 60

# A replayed message carries the durable it is meant for; other durables pass it over.
REPLAY_FOR = "Glam-Replay-For"

_DEAD = "Glam-Dead-"
_ORIGINAL = "Glam-Original-"
_TEXT_LIMIT_BYTES = 1024

_NOBODY = "503"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that was put aside.

    `body` and `headers` are those of the message. `sequence` is its number among the dead letters,
    `stream_sequence` the one it had in its own stream.
    """

    sequence: int
    subject: str
    body: bytes
    headers: Mapping[str, str]
    stream: str
    stream_sequence: int
    durable: str
    service: str
    reason: str
    error_type: str | None
    error_message: str | None
    fingerprint: str | None
    attempts: int
    at: datetime


class DeadLetters:
    """The dead letters of all services, in the stream DEAD_LETTERS for 30 days."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        # A dead letter may use the room that the publisher of the message had to leave.
        self._publisher = Publisher(bus, headroom_bytes=0)

    async def store(
        self,
        delivery: Delivery,
        *,
        durable: str,
        service: str,
        reason: str,
        error: BaseException | None = None,
    ) -> PubAck:
        """Keep a message. On return the server has it; storing it twice keeps it once.

        Raises:
            MessageBusError: It is not known to be kept.
        """
        headers = {
            **{_kept_name(name): value for name, value in delivery.headers.items()},
            f"{_DEAD}Reason": _short(reason),
            f"{_DEAD}Durable": durable,
            f"{_DEAD}Service": service,
            f"{_DEAD}Stream": delivery.stream,
            f"{_DEAD}Sequence": str(delivery.sequence),
            f"{_DEAD}Subject": delivery.subject,
            f"{_DEAD}Attempts": str(delivery.attempt),
            f"{_DEAD}At": datetime.now(UTC).isoformat(),
        }
        if error is not None:
            headers |= {
                f"{_DEAD}Error-Type": f"{type(error).__module__}.{type(error).__qualname__}",
                f"{_DEAD}Error-Message": _short(str(error)),
                f"{_DEAD}Fingerprint": fingerprint(error),
            }
        stored_at = delivery.published_at.timestamp()
        message = OutgoingMessage(
            subject=f"dlq.{delivery.stream}.{durable}",
            body=delivery.body,
            headers=headers,
            message_id=f"dlq:{delivery.stream}:{durable}:{delivery.sequence}:{stored_at}",
        )
        return await self._publish(message)

    async def list(self, *, limit: int = 100, after: int = 0) -> list[DeadLetter]:
        """Return at most `limit` dead letters with a sequence above `after`, oldest first.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        return await _read(self._bus, {"seq": after + 1, "next_by_subj": SUBJECTS, "batch": limit})

    async def get(self, sequence: int) -> DeadLetter:
        """Return one dead letter.

        Raises:
            NotFoundError: There is none of that sequence.
            MessageBusError: JetStream does not answer.
        """
        for letter in await _read(self._bus, {"seq": sequence}):
            return letter
        raise NotFoundError(
            f"there is no dead letter {sequence}", resource="dead letter", resource_id=sequence
        )

    async def replay(self, sequence: int) -> PubAck:
        """Publish a dead letter to its subject again, then remove it.

        Body and headers are those of the message, under a fresh `Nats-Msg-Id`, since the first one
        may still be in the stream's dedupe window. Only the durable that failed handles it: other
        subscribers of this package pass it over, and consumers of other make see it again.

        A crash between the two steps leaves the dead letter listed; its second replay carries the
        same id as the first and is deduped inside the stream's window.

        Raises:
            NotFoundError: There is none of that sequence.
            MessageBusError: It is not known to be published; then it is not removed.
        """
        letter = await self.get(sequence)
        ack = await self._publisher.publish(
            OutgoingMessage(
                subject=letter.subject,
                body=letter.body,
                headers={
                    **{k: v for k, v in letter.headers.items() if not _is_servers(k)},
                    REPLAY_FOR: letter.durable,
                },
                message_id=f"replay:{sequence}:{letter.at.timestamp()}",
            )
        )
        await self._remove(sequence)
        _logger.info(
            "dead letter replayed",
            extra={"dead_letter": sequence, "subject": letter.subject, "durable": letter.durable},
        )
        return ack

    async def discard(self, sequence: int, reason: str) -> None:
        """Remove a dead letter for good; `reason` is kept in the log.

        Raises:
            NotFoundError: There is none of that sequence.
            MessageBusError: JetStream does not answer.
        """
        letter = await self.get(sequence)
        await self._remove(sequence)
        _logger.warning(
            "dead letter discarded: %s",
            reason,
            extra={"dead_letter": sequence, "subject": letter.subject, "durable": letter.durable},
        )

    async def _publish(self, message: OutgoingMessage) -> PubAck:
        try:
            return await self._publisher.publish(message)
        except MessageBusError as error:
            if not isinstance(error.__cause__, nats.errors.NoRespondersError):
                raise
        # The stream is made by the first who needs it, and again if somebody deleted it.
        await self._bus.ensure_stream_config(_STREAM_CONFIG)
        return await self._publisher.publish(message)

    async def _remove(self, sequence: int) -> None:
        with translated("delete", stream=STREAM):
            await self._bus.js.delete_msg(STREAM, sequence)


_STREAM_CONFIG = StreamConfig(
    name=STREAM,
    subjects=[SUBJECTS],
    storage=StorageType.FILE,
    retention=RetentionPolicy.LIMITS,
    max_age=MAX_AGE_SECONDS,
    duplicate_window=120,
    allow_direct=True,
)


async def _read(bus: Bus, request: Mapping[str, object]) -> list[DeadLetter]:
    """Read by Direct Get (ADR-31): the raw headers and body, many messages for one request."""
    await bus.ensure_stream_config(_STREAM_CONFIG)
    client = bus.client
    inbox = client.new_inbox()
    letters: list[DeadLetter] = []
    with translated("read", stream=STREAM):
        subscription = await client.subscribe(inbox)
        try:
            await client.publish(f"$JS.API.DIRECT.GET.{STREAM}", to_json(request), reply=inbox)
            while not letters or "batch" in request:
                message = await subscription.next_msg(timeout=API_TIMEOUT_SECONDS)
                status = (message.headers or {}).get("Status")
                if status == _NOBODY:
                    raise nats.errors.NoRespondersError
                if status is not None:
                    break
                letters.append(_letter(message))
        finally:
            await subscription.unsubscribe()
    return letters


def fingerprint(error: BaseException) -> str:
    """Return 16 hex digits that are the same for errors raised along the same road."""
    frames = traceback.extract_tb(error.__traceback__)
    road = "\n".join(f"{frame.filename}:{frame.name}" for frame in frames)
    return hashlib.sha256(f"{type(error).__qualname__}\n{road}".encode()).hexdigest()[:16]


def _letter(message: Msg) -> DeadLetter:
    headers = message.headers or {}
    dead = {
        name.removeprefix(_DEAD): value for name, value in headers.items() if name.startswith(_DEAD)
    }
    return DeadLetter(
        sequence=int(headers["Nats-Sequence"]),
        subject=dead.get("Subject", ""),
        body=message.data,
        headers={
            name.removeprefix(_ORIGINAL): value
            for name, value in headers.items()
            if not name.startswith((_DEAD, "Nats-"))
        },
        stream=dead.get("Stream", ""),
        stream_sequence=int(dead.get("Sequence", 0)),
        durable=dead.get("Durable", ""),
        service=dead.get("Service", ""),
        reason=dead.get("Reason", ""),
        error_type=dead.get("Error-Type"),
        error_message=dead.get("Error-Message"),
        fingerprint=dead.get("Fingerprint"),
        attempts=int(dead.get("Attempts", 0)),
        at=datetime.fromisoformat(dead.get("At") or headers["Nats-Time-Stamp"]),
    )


def _kept_name(name: str) -> str:
    """Return the name under which a header of the message is kept.

    Headers that the server obeys (ids, expectations, roll-ups, schedules) would act on the stream
    of dead letters, and those of an earlier dead letter would be taken for this one's.
    """
    return f"{_ORIGINAL}{name}" if _is_servers(name) or name.startswith(_DEAD) else name


def _is_servers(name: str) -> bool:
    return name.lower().startswith("nats-")


def _short(text: str) -> str:
    """Return at most a kilobyte of `text` on one line."""
    line = " ".join(text.split())
    return line.encode()[:_TEXT_LIMIT_BYTES].decode(errors="ignore")
