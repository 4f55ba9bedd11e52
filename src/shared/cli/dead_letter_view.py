"""Dead letters as a terminal and a program want to see them."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict
from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json

from shared.cli.table import new_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from shared.messaging import AuditRecord, DeadLetter, DeadLetterGroup, DeadLetterHead


_MOMENT = "%Y-%m-%d %H:%M:%S"


def letters_table(letters: Iterable[DeadLetterHead]) -> Table:
    """Make a table of dead letters."""
    listed = new_table(
        "#", "at", "subject", "handler", "attempts", "reason", "error", "fingerprint"
    )
    for letter in letters:
        listed.add_row(
            str(letter.sequence),
            letter.at.strftime(_MOMENT),
            letter.subject,
            letter.durable,
            str(letter.attempts),
            letter.reason,
            _last(letter.error_type),
            letter.fingerprint or "",
        )
    return listed


def groups_table(groups: Iterable[DeadLetterGroup]) -> Table:
    """Make a table of groups."""
    listed = new_table(
        "count", "handler", "error", "message", "fingerprint", "first", "last", "version", "example"
    )
    for group in groups:
        listed.add_row(
            str(group.count),
            group.durable,
            _last(group.error_type) or group.reason,
            group.error_message or "",
            group.fingerprint or "",
            group.first_at.strftime(_MOMENT),
            group.last_at.strftime(_MOMENT),
            " ".join(group.versions),
            str(group.example),
        )
    return listed


def audit_table(records: Iterable[AuditRecord]) -> Table:
    """Make a table of what was done."""
    listed = new_table(
        "record", "at", "letter", "what", "who", "why", "handler", "went to", "edited"
    )
    for record in records:
        listed.add_row(
            str(record.sequence),
            record.at.strftime(_MOMENT),
            str(record.letter.sequence),
            record.action.value,
            record.actor,
            record.reason,
            record.letter.durable,
            f"{record.result_stream} {record.result_sequence}" if record.result_stream else "",
            " ".join(change.path for change in record.changes),
        )
    return listed


def told(letter: DeadLetterHead) -> dict[str, object]:
    """Return all that is known of a dead letter but its body."""
    known = asdict(letter)
    known.pop("body", None)
    return {**known, "trace_id": letter.trace_id, "correlation_id": letter.correlation_id}


def told_whole(letter: DeadLetter) -> dict[str, object]:
    """Return a dead letter with its body: as text where it is text, and as base64 in any case."""
    return {**told(letter), "body": letter.text, "body_base64": b64encode(letter.body).decode()}


def pretty(body: bytes) -> str:
    """Return JSON indented, other text as it is, and what is not text with its bytes escaped."""
    try:
        return to_json(from_json(body), indent=2).decode()
    except ValueError:
        return body.decode(errors="backslashreplace")


def _last(error_type: str | None) -> str:
    return (error_type or "").rpartition(".")[2]
