"""Which dead letters are meant, and how those of one kind are counted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field

from shared.errors import ValidationError
from shared.events.streams import covers

if TYPE_CHECKING:
    from shared.messaging.dead_letters.dead_letter import DeadLetterHead


_TOKEN_BREAKERS = set(" \t\r\n\f.*>")


def _written_out(value: object) -> object:
    """Refuse a number, which pydantic would take for the seconds since 1970."""
    if not isinstance(value, str | datetime) or _is_number(value):
        raise ValueError(f"{value!r} is not a point in time: write it out, as 2026-01-31T12:00:00Z")
    return value


def _is_number(value: str | datetime) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


_Token = Annotated[str, Field(pattern=r"^[^ \t\r\n\f.*>]+$")]
_Moment = Annotated[datetime, BeforeValidator(_written_out)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterFilter:
    """Which dead letters are meant: those that fit all that is given. Without any, all of them.

    The query of the HTTP routes and the options of ``glam dlq`` are made from its fields.

    >>> DeadLetterFilter(subject="evt.invoice.>", error="timeout", since=datetime(2025, 1, 31))
    DeadLetterFilter(...subject='evt.invoice.>'...error='timeout'...tzinfo=datetime.timezone.utc)...)
    >>> DeadLetterFilter(durable="till.*")
    ValidationError: 'till.*' is not a durable: it is one word without dots and wildcards

    Attributes:
        stream: the message's stream.
        durable: the handler that failed.
        service: the service it belongs to.
        subject: the message's subject; wildcards are allowed (`evt.order.>`).
        reason: found in the reason, in upper or lower case.
        error: found in the error's type or its message, in upper or lower case.
        fingerprint: how the fingerprint begins.
        since: stored at that time or later. Without an offset it is UTC.
        until: stored before that time.

    Raises:
        ValidationError: a stream or durable that is not one.
    """

    stream: _Token | None = field(default=None, metadata={"help": "Only of this stream."})
    durable: _Token | None = field(
        default=None, metadata={"help": "Only of this handler (durable)."}
    )
    service: str | None = field(default=None, metadata={"help": "Only of this service."})
    subject: str | None = field(
        default=None, metadata={"help": "Only of this subject; may have wildcards."}
    )
    reason: str | None = field(default=None, metadata={"help": "Only with this in the reason."})
    error: str | None = field(
        default=None, metadata={"help": "Only with this in the error's type or message."}
    )
    fingerprint: str | None = field(default=None, metadata={"help": "Only with this fingerprint."})
    since: _Moment | None = field(
        default=None, metadata={"help": "Only since then: 2h, 3d, or ISO 8601."}
    )
    until: _Moment | None = field(default=None, metadata={"help": "Only before then."})

    def __post_init__(self) -> None:
        for name in ("stream", "durable"):
            value: str | None = getattr(self, name)
            if value is not None and (not value or _TOKEN_BREAKERS & set(value)):
                raise ValidationError(
                    f"{value!r} is not a {name}: it is one word without dots and wildcards",
                    field=name,
                    value=value,
                )
        for name in ("since", "until"):
            moment: datetime | None = getattr(self, name)
            if moment is not None and moment.tzinfo is None:
                object.__setattr__(self, name, moment.replace(tzinfo=UTC))

    @property
    def is_empty(self) -> bool:
        """Whether all dead letters are meant."""
        return self == DeadLetterFilter()

    @property
    def kept_under(self) -> str:
        """The subjects of the stream of dead letters at which they are: the server's part."""
        return f"dlq.{self.stream or '*'}.{self.durable or '*'}"

    def fits(self, letter: DeadLetterHead) -> bool:
        """Tell whether the dead letter is one of those that are meant."""
        return (
            self.stream in (None, letter.stream)
            and self.durable in (None, letter.durable)
            and self.service in (None, letter.service)
            and (self.subject is None or covers(self.subject, letter.subject))
            and (self.reason is None or _within(self.reason, letter.reason))
            and (self.error is None or _within(self.error, letter.error_type, letter.error_message))
            and (
                self.fingerprint is None
                or (letter.fingerprint or "").startswith(self.fingerprint.lower())
            )
            and (self.since is None or letter.at >= self.since)
            and (self.until is None or letter.at < self.until)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterGroup:
    """Dead letters of one handler whose errors have the same fingerprint: one cause, most likely.

    `error_message` and `reason` are those of the latest, whose number is `example`. Those without
    an error (their process died with them) have no fingerprint, and are grouped by their reason.
    """

    fingerprint: str | None
    durable: str
    service: str
    reason: str
    error_type: str | None
    error_message: str | None
    count: int
    first_at: datetime
    last_at: datetime
    example: int
    versions: tuple[str, ...]


class Grouping:
    """Counts dead letters into their groups; holds one entry for each group."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, str], DeadLetterGroup] = {}

    def add(self, letter: DeadLetterHead) -> None:
        """Count one dead letter."""
        key = (letter.durable, letter.fingerprint or letter.reason, letter.error_type or "")
        known = self._groups.get(key)
        versions = set(known.versions if known else ())
        if letter.version is not None:
            versions.add(letter.version)
        self._groups[key] = DeadLetterGroup(
            fingerprint=letter.fingerprint,
            durable=letter.durable,
            service=letter.service,
            reason=letter.reason,
            error_type=letter.error_type,
            error_message=letter.error_message,
            count=known.count + 1 if known else 1,
            first_at=min(known.first_at, letter.at) if known else letter.at,
            last_at=max(known.last_at, letter.at) if known else letter.at,
            example=letter.sequence,
            versions=tuple(sorted(versions)),
        )

    def groups(self) -> list[DeadLetterGroup]:
        """Return the groups, the largest first."""
        return sorted(self._groups.values(), key=lambda g: (-g.count, g.durable, g.example))


def _within(sought: str, *texts: str | None) -> bool:
    return any(sought.lower() in (text or "").lower() for text in texts)
