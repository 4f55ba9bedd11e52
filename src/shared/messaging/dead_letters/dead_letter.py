"""A dead letter: one message that could not be handled, and the headers that say why."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Mapping  # noqa: TC003 - the HTTP model of it is made at run time
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from shared.context import TraceContext
from shared.events.headers import CORRELATION_ID, TRACEPARENT

if TYPE_CHECKING:
    from shared.messaging.consuming.delivery import Delivery
    from shared.messaging.streams.facts import StoredMessage


MAX_AGE_SECONDS = 30 * 24 * 60 * 60  # dead letters, and what was done with them

_DEAD = "Glam-Dead-"
_ORIGINAL = "Glam-Original-"
AUDIT = "Glam-Audit-"  # what the audit adds to them
_TEXT_LIMIT_BYTES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterHead:
    """What is known of a dead letter without its body.

    `headers` are those of the message. `sequence` is its number among the dead letters,
    `stream_sequence` the one it had in its own stream; `durable` is the handler that failed, in
    the `version` of its `service`. `size_bytes` is the size of the body.
    """

    sequence: int
    subject: str
    headers: Mapping[str, str]
    stream: str
    stream_sequence: int
    durable: str
    service: str
    version: str | None = None
    reason: str
    error_type: str | None
    error_message: str | None
    fingerprint: str | None
    attempts: int
    at: datetime
    size_bytes: int = 0

    @property
    def traceparent(self) -> str | None:
        """The message's `traceparent` header, as it came."""
        return self._header(TRACEPARENT)

    @property
    def trace_id(self) -> str | None:
        """The trace the message belongs to: what `glam trace` asks for."""
        trace = TraceContext.parse(self.traceparent)
        return trace.trace_id if trace else None

    @property
    def correlation_id(self) -> str | None:
        """The message's correlation id."""
        return self._header(CORRELATION_ID)

    def _header(self, name: str) -> str | None:
        return next((v for n, v in self.headers.items() if n.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter(DeadLetterHead):
    """One message that could not be handled, whole: `body` is the message's, byte for byte."""

    body: bytes = field(repr=False)

    @property
    def text(self) -> str | None:
        """The body as text; None where it is not UTF-8."""
        try:
            return self.body.decode()
        except UnicodeDecodeError:
            return None


def kept_stream(name: str, subjects: str) -> StreamConfig:
    """Return the configuration of a stream that keeps dead letters."""
    return StreamConfig(
        name=name,
        subjects=[subjects],
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        max_age=MAX_AGE_SECONDS,
        duplicate_window=120,
        allow_direct=True,
    )


def fingerprint(error: BaseException) -> str:
    """Return 16 hex digits that are the same for errors of one type raised at the same place."""
    frames = traceback.extract_tb(error.__traceback__)
    path = "\n".join(f"{frame.filename}:{frame.name}" for frame in frames)
    return hashlib.sha256(f"{type(error).__qualname__}\n{path}".encode()).hexdigest()[:16]


def head_of(
    delivery: Delivery,
    *,
    durable: str,
    service: str,
    version: str | None,
    reason: str,
    error: BaseException | None,
) -> DeadLetterHead:
    """Return what is to be stored of a delivery; it has no number of its own yet."""
    kind = type(error)
    return DeadLetterHead(
        sequence=0,
        subject=delivery.subject,
        headers=delivery.headers,
        stream=delivery.stream,
        stream_sequence=delivery.sequence,
        durable=durable,
        service=service,
        version=version,
        reason=short(reason),
        error_type=f"{kind.__module__}.{kind.__qualname__}" if error is not None else None,
        error_message=short(str(error)) if error is not None else None,
        fingerprint=fingerprint(error) if error is not None else None,
        attempts=delivery.attempt,
        at=datetime.now(UTC),
        size_bytes=len(delivery.body),
    )


def write_headers(head: DeadLetterHead) -> dict[str, str]:
    """Return the headers with which a dead letter is stored: its own, and why it is there."""
    told = {
        "Reason": head.reason,
        "Durable": head.durable,
        "Service": head.service,
        "Version": head.version,
        "Stream": head.stream,
        "Sequence": str(head.stream_sequence),
        "Subject": head.subject,
        "Attempts": str(head.attempts),
        "At": head.at.isoformat(),
        "Error-Type": head.error_type,
        "Error-Message": head.error_message,
        "Fingerprint": head.fingerprint,
    }
    return {
        **{_kept_name(name): value for name, value in head.headers.items()},
        **{f"{_DEAD}{name}": value for name, value in told.items() if value is not None},
    }


def read_headers(message: StoredMessage, *, sequence: int | None = None) -> DeadLetterHead:
    """Read the headers that `write_headers` made.

    Args:
        message: as it is in its stream.
        sequence: the number among the dead letters, if it is not kept there.
    """
    headers = message.headers
    dead = {
        name.removeprefix(_DEAD): value for name, value in headers.items() if name.startswith(_DEAD)
    }
    return DeadLetterHead(
        sequence=message.sequence if sequence is None else sequence,
        subject=dead.get("Subject", ""),
        headers={
            name.removeprefix(_ORIGINAL): value
            for name, value in headers.items()
            if not name.startswith((_DEAD, AUDIT, "Nats-"))
        },
        stream=dead.get("Stream", ""),
        stream_sequence=int(dead.get("Sequence", 0)),
        durable=dead.get("Durable", ""),
        service=dead.get("Service", ""),
        version=dead.get("Version"),
        reason=dead.get("Reason", ""),
        error_type=dead.get("Error-Type"),
        error_message=dead.get("Error-Message"),
        fingerprint=dead.get("Fingerprint"),
        attempts=int(dead.get("Attempts", 0)),
        at=datetime.fromisoformat(dead["At"]) if dead.get("At") else message.stored_at,
        size_bytes=message.size_bytes,
    )


def whole(head: DeadLetterHead, body: bytes) -> DeadLetter:
    """Put a body to what is known of its dead letter."""
    parts = {known.name: getattr(head, known.name) for known in fields(DeadLetterHead)}
    return DeadLetter(**parts, body=body)


def is_servers(name: str) -> bool:
    """Tell whether the server reads a header of that name."""
    return name.lower().startswith("nats-")


def short(text: str, limit_bytes: int = _TEXT_LIMIT_BYTES) -> str:
    """Return at most a kilobyte of `text` on one line."""
    line = " ".join(text.split())
    return line.encode(errors="replace")[:limit_bytes].decode(errors="ignore")


def _kept_name(name: str) -> str:
    """Return the name under which a header of the message is kept.

    Headers that the server obeys (ids, expectations, roll-ups, schedules) would act on the stream
    of dead letters, and those of an earlier dead letter would be taken for this one's.
    """
    taken = is_servers(name) or name.startswith((_DEAD, _ORIGINAL, AUDIT))
    return f"{_ORIGINAL}{name}" if taken else name
