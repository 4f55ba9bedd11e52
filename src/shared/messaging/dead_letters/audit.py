"""Who did what with dead letters, and the letters themselves, for thirty days more."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from pydantic_core import from_json, to_json

from shared.errors import NotFoundError
from shared.messaging.dead_letters.dead_letter import (
    AUDIT,
    DeadLetter,
    DeadLetterHead,
    read_head,
    short,
    whole,
    write_head,
)
from shared.messaging.dead_letters.direct_get import read_messages
from shared.messaging.dead_letters.edit import Change
from shared.messaging.dead_letters.header_scan import read_heads
from shared.messaging.publisher import OutgoingMessage, PubAck, Publisher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.messaging.connection.connection import Connection

__all__ = ["Action", "AuditPage", "AuditRecord"]

STREAM = "DEAD_LETTERS_AUDIT"
SUBJECTS = "dlq-audit.>"
MAX_AGE_SECONDS = 30 * 24 * 60 * 60

# With the letter's own headers they stay within the room that a publisher leaves.
_ACTOR_BYTES = 256
_CHANGES_BYTES = 2048


class Action(StrEnum):
    """What was done with a dead letter."""

    REPLAYED = "replayed"
    DISCARDED = "discarded"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """What somebody did with a dead letter.

    `sequence` is the record's number in the audit. `letter` is the letter as it was. A replay went
    to `result_stream` as `result_sequence`; so did a restored letter, to the dead letters.
    `changes` tells what was edited, cut short after 2 KB (`changes_cut`), and `edited` is a digest
    of the edited body: that body is in the stream, the one it had before is kept with the record.
    """

    sequence: int
    action: Action
    actor: str
    reason: str
    at: datetime
    letter: DeadLetterHead
    result_stream: str | None
    result_sequence: int | None
    edited: str | None
    changes: tuple[Change, ...]
    changes_cut: bool


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A page of the audit, oldest first; `next_after` is None when nothing comes after it."""

    records: list[AuditRecord]
    next_after: int | None


class Audit:
    """The stream of the audit."""

    def __init__(self, bus: Connection, publisher: Publisher) -> None:
        self._bus = bus
        self._publisher = publisher
        self._ensured = False

    async def write(
        self,
        action: Action,
        letter: DeadLetter,
        *,
        actor: str,
        reason: str,
        result: PubAck | None = None,
        edited: str | None = None,
        changes: Sequence[Change] = (),
    ) -> None:
        """Write down what is done. On return the server has it.

        Raises:
            MessageBusError: It is not known to be kept.
        """
        await self._ensure()
        told = {
            "Action": action.value,
            "Letter": str(letter.sequence),
            "Actor": short(actor, _ACTOR_BYTES),
            "Reason": short(reason),
            "At": datetime.now(UTC).isoformat(),
            "Result-Stream": result.stream if result else None,
            "Result-Sequence": str(result.sequence) if result else None,
            "Edited": edited,
            **_changes_written(changes),
        }
        await self._publisher.publish(
            OutgoingMessage(
                subject=_subject(action, letter.sequence),
                body=letter.body,
                headers={
                    **write_head(letter),
                    **{f"{AUDIT}{name}": v for name, v in told.items() if v is not None},
                },
                message_id=f"{action}:{letter.sequence}:{letter.at.timestamp()}:{edited or ''}",
            )
        )

    async def replay_of(self, letter: DeadLetterHead) -> AuditRecord | None:
        """Return the record of a replay that published the letter and did not remove it."""
        await self._ensure()
        subject = _subject(Action.REPLAYED, letter.sequence)
        for message in await read_messages(self._bus, STREAM, {"last_by_subj": subject}):
            record = _record(
                message.sequence, message.headers, message.stored_at, len(message.body)
            )
            # The numbers begin anew when the stream was deleted; the moment tells letters apart.
            if record.letter.at == letter.at:
                return record
        return None

    async def page(self, *, letter: int | None, after: int, limit: int) -> AuditPage:
        """Return at most `limit` records with a sequence above `after`."""
        await self._ensure()
        subject = f"dlq-audit.*.{letter}" if letter is not None else SUBJECTS
        page = await read_heads(self._bus, STREAM, subject, after=after, limit=limit)
        records = [_record(h.sequence, h.headers, h.stored_at, h.size_bytes) for h in page.heads]
        return AuditPage(records, records[-1].sequence if records and page.left else None)

    async def letter(self, sequence: int) -> DeadLetter:
        """Return the letter of a record, whole.

        Raises:
            NotFoundError: There is no record of that sequence.
        """
        await self._ensure()
        for message in await read_messages(self._bus, STREAM, {"seq": sequence}):
            record = _record(
                message.sequence, message.headers, message.stored_at, len(message.body)
            )
            return whole(record.letter, message.body)
        raise NotFoundError(
            f"there is no record {sequence} in the audit of dead letters",
            resource="audit record",
            resource_id=sequence,
        )

    async def _ensure(self) -> None:
        # Once: a stream that is deleted later is asked for, not silently begun anew.
        if not self._ensured:
            await self._bus.ensure_stream_config(_CONFIG)
            self._ensured = True


_CONFIG = StreamConfig(
    name=STREAM,
    subjects=[SUBJECTS],
    storage=StorageType.FILE,
    retention=RetentionPolicy.LIMITS,
    max_age=MAX_AGE_SECONDS,
    duplicate_window=120,
    allow_direct=True,
)


def _subject(action: Action, letter: int) -> str:
    return f"dlq-audit.{action}.{letter}"


def _changes_written(changes: Sequence[Change]) -> dict[str, str | None]:
    fitting: list[Change] = []
    for change in changes:
        if len(_json([*fitting, change])) > _CHANGES_BYTES:
            break
        fitting.append(change)
    return {
        "Changes": _json(fitting) if fitting else None,
        "Changes-Cut": "1" if len(fitting) < len(changes) else None,
    }


def _json(changes: Sequence[Change]) -> str:
    # Headers are read as ASCII by some clients.
    return to_json([asdict(change) for change in changes], ensure_ascii=True).decode()


def _record(
    sequence: int, headers: Mapping[str, str], stored_at: datetime, size_bytes: int
) -> AuditRecord:
    told = {
        name.removeprefix(AUDIT): value for name, value in headers.items() if name.startswith(AUDIT)
    }
    result = told.get("Result-Sequence")
    return AuditRecord(
        sequence=sequence,
        action=Action(told["Action"]),
        actor=told.get("Actor", ""),
        reason=told.get("Reason", ""),
        at=datetime.fromisoformat(told["At"]),
        letter=read_head(
            headers, sequence=int(told["Letter"]), stored_at=stored_at, size_bytes=size_bytes
        ),
        result_stream=told.get("Result-Stream"),
        result_sequence=int(result) if result else None,
        edited=told.get("Edited"),
        changes=tuple(Change(**change) for change in from_json(told.get("Changes", "[]"))),
        changes_cut="Changes-Cut" in told,
    )
