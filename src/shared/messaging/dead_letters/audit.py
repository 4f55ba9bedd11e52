"""Who did what with dead letters, and the dead letters themselves, for thirty days more."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json

from shared.errors import NotFoundError
from shared.messaging.dead_letters.dead_letter import (
    AUDIT,
    DeadLetter,
    DeadLetterHead,
    kept_stream,
    read_headers,
    short,
    whole,
    write_headers,
)
from shared.messaging.dead_letters.direct_get import read_messages
from shared.messaging.dead_letters.edit import BodyChange
from shared.messaging.dead_letters.header_scan import scan_headers
from shared.messaging.publisher import OutgoingMessage, PubAck, Publisher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.messaging.connection.connection import Connection
    from shared.messaging.streams.facts import StoredMessage


STREAM = "DEAD_LETTERS_AUDIT"
SUBJECTS = "dlq-audit.>"

# With the message's own headers they stay within the room that a publisher leaves.
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

    `sequence` is the record's number in the audit. `letter` is the dead letter as it was. A
    replay went to `result_stream` as `result_sequence`; so did a restored one, to the dead letters.
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
    changes: tuple[BodyChange, ...]
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
        changes: Sequence[BodyChange] = (),
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
                    **write_headers(letter),
                    **{f"{AUDIT}{name}": v for name, v in told.items() if v is not None},
                },
                message_id=f"{action}:{letter.sequence}:{letter.at.timestamp()}:{edited or ''}",
            )
        )

    async def replay_of(self, letter: DeadLetterHead) -> AuditRecord | None:
        """Return the record of a replay that published the dead letter and did not remove it."""
        await self._ensure()
        subject = _subject(Action.REPLAYED, letter.sequence)
        for message in await read_messages(self._bus, STREAM, {"last_by_subj": subject}):
            record = _record(message)
            # The numbers begin anew when the stream was deleted; the time tells them apart.
            if record.letter.at == letter.at:
                return record
        return None

    async def page(self, *, letter: int | None, after: int, limit: int) -> AuditPage:
        """Return at most `limit` records with a sequence above `after`."""
        await self._ensure()
        subject = f"dlq-audit.*.{letter}" if letter is not None else SUBJECTS
        page = await scan_headers(self._bus, STREAM, subject, after=after, limit=limit)
        records = [_record(message) for message in page.messages]
        return AuditPage(records, records[-1].sequence if records and page.left else None)

    async def letter(self, sequence: int) -> DeadLetter:
        """Return the dead letter of a record, whole.

        Raises:
            NotFoundError: There is no record of that sequence.
        """
        await self._ensure()
        for message in await read_messages(self._bus, STREAM, {"seq": sequence}):
            record = _record(message)
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


_CONFIG = kept_stream(STREAM, SUBJECTS)


def _subject(action: Action, letter: int) -> str:
    return f"dlq-audit.{action}.{letter}"


def _changes_written(changes: Sequence[BodyChange]) -> dict[str, str | None]:
    fitting: list[BodyChange] = []
    for change in changes:
        if len(_json([*fitting, change])) > _CHANGES_BYTES:
            break
        fitting.append(change)
    return {
        "Changes": _json(fitting) if fitting else None,
        "Changes-Cut": "1" if len(fitting) < len(changes) else None,
    }


def _json(changes: Sequence[BodyChange]) -> str:
    # Headers are read as ASCII by some clients.
    return to_json([asdict(change) for change in changes], ensure_ascii=True).decode()


def _record(message: StoredMessage) -> AuditRecord:
    told = {
        name.removeprefix(AUDIT): value
        for name, value in message.headers.items()
        if name.startswith(AUDIT)
    }
    result = told.get("Result-Sequence")
    return AuditRecord(
        sequence=message.sequence,
        action=Action(told["Action"]),
        actor=told.get("Actor", ""),
        reason=told.get("Reason", ""),
        at=datetime.fromisoformat(told["At"]),
        letter=read_headers(message, sequence=int(told["Letter"])),
        result_stream=told.get("Result-Stream"),
        result_sequence=int(result) if result else None,
        edited=told.get("Edited"),
        changes=tuple(BodyChange(**change) for change in from_json(told.get("Changes", "[]"))),
        changes_cut="Changes-Cut" in told,
    )
