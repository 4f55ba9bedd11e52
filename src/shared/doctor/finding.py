"""A finding, and the table of all there can be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Severity(StrEnum):
    """How bad it is. A note is worth knowing; a warning will hurt some day; an error hurts now."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        code: its kind, one of `CODES`; it never changes its meaning.
        severity: how bad it is.
        about: what was looked at, such as ``stream CREDIT``.
        what: what is.
        fix: what to do: a command or a line of settings to paste; empty when all is well.
    """

    code: str
    severity: Severity
    about: str
    what: str
    fix: str = ""

    @property
    def why(self) -> str:
        """Why it matters, in one sentence."""
        return CODES[self.code]

    def as_dict(self) -> dict[str, str]:
        """Return it for JSON."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "about": self.about,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
        }


class Findings(list[Finding]):
    """What was found of one thing; each of its methods adds one finding.

    Args:
        about: what was looked at. A method may say something else.
    """

    def __init__(self, about: str) -> None:
        super().__init__()
        self._about = about

    def error(self, code: str, what: str, fix: str, *, about: str | None = None) -> None:
        """Add what hurts now."""
        self.add(code, Severity.ERROR, what, fix, about=about)

    def warning(self, code: str, what: str, fix: str, *, about: str | None = None) -> None:
        """Add what will hurt some day."""
        self.add(code, Severity.WARNING, what, fix, about=about)

    def note(self, code: str, what: str, fix: str, *, about: str | None = None) -> None:
        """Add what is worth knowing."""
        self.add(code, Severity.NOTE, what, fix, about=about)

    def add(
        self, code: str, severity: Severity, what: str, fix: str, *, about: str | None = None
    ) -> None:
        """Add a finding of a severity that depends."""
        self.append(Finding(code, severity, about or self._about, what, fix))

    def or_well(self, code: str, what: str) -> list[Finding]:
        """Return the findings; if there are none, one that says what is well."""
        return self or [Finding(code, Severity.OK, self._about, what)]


# Why each kind of finding matters. docs/doctor.md has the same table, and a test compares them.
CODES: Mapping[str, str] = {
    # What was looked at and found well.
    "server": "The server has what the services need.",
    "stream": "The stream is as declared, and has room.",
    "consumer": "The consumer is as declared, and its messages are handled.",
    "database": "The database and the outbox are as declared, and nothing waits.",
    "contracts": "Every subject has one form, and a stream.",
    # What could not be looked at.
    "settings": "A service whose settings are wrong does not start.",
    "nats-unreachable": "Without the server nothing is published or handled; outboxes fill.",
    "database-unreachable": "Without the database no handler has an effect, and no event is added.",
    "not-looked-at": "What could not be looked at may be well or not.",
    # The server.
    "jetstream-off": "Without JetStream there are no streams, and every publication fails.",
    "server-version": "What the server cannot do is done in a slower or weaker way, or not at all.",
    "known-loss": "This release is documented to have lost messages that were acknowledged.",
    "max-payload": "A larger message is refused by the server, and waits in the outbox for ever.",
    "storage-left": "A server without storage refuses what is published, and outboxes fill.",
    "ack-pending-limit": "The server refuses a consumer that asks for more than it may have.",
    "sync-interval": "Acknowledged does not mean on disk: a power loss takes what was not synced.",
    "clock-skew": "Delays, schedules, leases and retentions are counted on more than one clock.",
    # Streams.
    "stream-missing": "What is published to it fails, and waits in the outbox.",
    "stream-subjects": "What no stream takes is refused.",
    "stream-refused": "A service that declares this stream does not start.",
    "stream-replicas": "A stream with fewer copies than asked for survives fewer lost servers.",
    "stream-single-copy": "The one server that has the only copy takes the stream with it.",
    "stream-leader": "A stream without a leader takes and gives nothing.",
    "stream-copies": "While a copy is behind, losing another server may stop the stream.",
    "stream-limits": "The stream forgets earlier, or takes less, than its services define.",
    "stream-features": "What the stream does not allow is done in a slower or weaker way.",
    "stream-drift": "It differs from what is declared, and no service will change it.",
    "stream-full": "A full stream drops its oldest messages, read or not, or refuses new ones.",
    "stream-max-age": "A message may be gone before its last attempt: no effect, no dead letter.",
    "dedupe-window": "What a relay stored and could not mark is stored again after a takeover.",
    "dedupe-outage": "Without an inbox, what is stored twice is handled twice.",
    "outbox-retention": "A lost stream is filled again only as far back as the outbox goes.",
    "inbox-retention": "A message that is delivered after the inbox forgot it takes effect twice.",
    "inbox-replay": "A dead letter whose effect did happen may have it again when it is replayed.",
    "dead-letters": "Each is an effect that did not happen, and is dropped after 30 days.",
    # Consumers.
    "consumer-missing": "Nobody remembers how far a handler has read.",
    "consumer-filter": "The handler is given other messages than it declares.",
    "consumer-max-deliver": "The server gives up on a message by itself, without a dead letter.",
    "consumer-config": "The consumer works under other rules than its handler declares.",
    "consumer-unread": "Messages wait, and nobody asks for them.",
    "consumer-backlog": "Messages wait for longer than a healthy service lets them.",
    "consumer-stuck": "At its limit of unacknowledged messages the server stops in silence.",
    "consumer-ack-pending": "Replicas run dry while the server waits for acknowledgements.",
    "consumer-redelivered": "Most of the work is done again: attempts fail, or take too long.",
    "consumer-paused": "A paused consumer gives nothing to anybody.",
    "consumer-orphan": "No handler reads it: its messages are never handled.",
    "consumer-ack-wait": "A short stall hands messages to another replica, which then run twice.",
    # The database and the outbox.
    "schema-revision": "The code expects tables and columns that are not there, or no longer.",
    "outbox-missing": "A service without an outbox cannot publish with its transactions.",
    "outbox-backlog": "Events have happened, and are not published.",
    "outbox-failing": "What cannot be published holds back the later messages of its key.",
    "outbox-leases": "A partition that no relay holds is not published.",
    "autovacuum": "Every row of the outbox dies; without vacuum its indexes grow for ever.",
    "table-bloat": "Dead rows are read again and again, and the relay slows down.",
    "long-transaction": "Nothing that died after it began can be vacuumed, in any table.",
    "database-superuser": "Row-level security does not bind this role: tenants are not held apart.",
    "connection-limit": "The last replica to start gets no connections.",
    "statement-timeout": "A statement that hangs holds its connection and its locks for ever.",
    # Contracts.
    "contract-disputed": "A reader of one form rejects the messages of the other.",
    "contract-stream": "A service that publishes or handles a subject of no stream does not start.",
}
