"""Dead letters as a terminal and a program want to see them."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict
from typing import TYPE_CHECKING

from pydantic_core import from_json, to_json

from shared.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.messaging import AuditRecord, DeadLetter, DeadLetterGroup, DeadLetterHead


_MOMENT = "%Y-%m-%d %H:%M:%S"


def print_letters(letters: Iterable[DeadLetterHead]) -> None:
    """Print a table of dead letters."""
    print_table(
        ("#", "at", "subject", "handler", "attempts", "reason", "error", "fingerprint"),
        (
            (
                letter.sequence,
                letter.at.strftime(_MOMENT),
                letter.subject,
                letter.durable,
                letter.attempts,
                letter.reason,
                _last(letter.error_type),
                letter.fingerprint,
            )
            for letter in letters
        ),
    )


def print_groups(groups: Iterable[DeadLetterGroup]) -> None:
    """Print a table of groups."""
    print_table(
        [
            "count",
            "handler",
            "error",
            "message",
            "fingerprint",
            "first",
            "last",
            "version",
            "example",
        ],
        (
            (
                group.count,
                group.durable,
                _last(group.error_type) or group.reason,
                group.error_message,
                group.fingerprint,
                group.first_at.strftime(_MOMENT),
                group.last_at.strftime(_MOMENT),
                " ".join(group.versions),
                group.example,
            )
            for group in groups
        ),
    )


def print_audit(records: Iterable[AuditRecord]) -> None:
    """Print a table of what was done."""
    print_table(
        ("record", "at", "letter", "what", "who", "why", "handler", "went to", "edited"),
        (
            (
                record.sequence,
                record.at.strftime(_MOMENT),
                record.letter.sequence,
                record.action,
                record.actor,
                record.reason,
                record.letter.durable,
                record.result_stream and f"{record.result_stream} {record.result_sequence}",
                " ".join(change.path for change in record.changes),
            )
            for record in records
        ),
    )


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
