"""Streams: what one holds and for how long, and which of them holds a subject.

A subject reads ``cmd.<domain>.<...>`` (please do) or ``evt.<domain>.<...>`` (this happened), and by
convention the domain decides its stream: ``evt.invoice.paid`` and ``cmd.invoice.>`` are held by
``INVOICE``, which takes ``cmd.invoice.>`` and ``evt.invoice.>``. Where that does not suit, streams
are defined, and a table of definitions is asked before the convention is.

    STREAMS = StreamTable([StreamDefinition("BILLING", ("evt.invoice.>", "cmd.invoice.>"))])
    STREAMS.holding("evt.invoice.paid").name  # BILLING
    STREAMS.holding("evt.parcel.sent").name  # PARCEL
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from itertools import combinations
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

WEEK_SECONDS = 7 * 24 * 60 * 60

# In our own subjects a narrow alphabet keeps them usable as names of durable consumers, labels of
# metrics and names of files. Of others' anything is taken that NATS takes.
_TOKEN = r"[A-Za-z0-9_-]+"  # noqa: S105 - a part of a subject, not a secret
_FILTER = re.compile(rf"(?:cmd|evt)\.({_TOKEN})(?:\.(?:{_TOKEN}|\*))*\.(?:{_TOKEN}|\*|>)")
_THEIRS = re.compile(r"(?:(?:[^\s.*>\x00-\x1f]+|\*)\.)*(?:[^\s.*>\x00-\x1f]+|\*|>)")
_NAME = re.compile(r"[^\s.*>/\\]+")

# The chassis' own: streams, object stores (``OBJ_``) and key-value stores (``KV_``) by name, and
# the subjects they take.
_OWN_NAMES = frozenset({"ATTEMPTS", "DEAD_LETTERS", "DEAD_LETTERS_AUDIT"})
_OWN_PREFIXES = ("OBJ_", "KV_", "$")
_OWN_SUBJECTS = ("attempts.>", "dlq.>", "dlq-audit.>", "fence.>", "$JS.>", "$SYS.>", "_INBOX.>")

_CHOICES = {"retention": ("limits", "interest", "workqueue"), "storage": ("file", "memory")}
_ABOVE_ZERO = (
    "max_age_seconds",
    "max_messages",
    "max_bytes",
    "max_message_bytes",
    "max_messages_per_subject",
    "replicas",
    "dedupe_window_seconds",
)
_MOST_REPLICAS = 5  # that a JetStream server makes of one stream


class StreamError(ValueError):
    """Streams are defined in a way that cannot hold; the message names the definitions."""


@dataclass(frozen=True, slots=True)
class StreamDefinition:
    """What a stream takes and how long it keeps it.

    A stream that is there is widened to what is defined, never narrowed. None leaves a value to
    the settings (`replicas`, `dedupe_window_seconds`), else it is no limit.

    >>> billing = StreamDefinition("BILLING", ("evt.invoice.>", "cmd.invoice.>"))
    >>> billing.holds("evt.invoice.paid"), billing.holds("evt.parcel.sent")
    (True, False)
    >>> StreamDefinition("AUDIT", ("evt.invoice.>", "evt.*.paid"))
    StreamError: stream AUDIT: 'evt.invoice.>' and 'evt.*.paid' overlap...

    Attributes:
        name: the stream's, without white space, dots, wildcards and slashes.
        subjects: the filters of what it takes.
        retention: ``limits`` keeps messages up to the limits, ``interest`` until all consumers have
            acknowledged them, ``workqueue`` until one has.
        max_age_seconds: how long a message is kept; by default a week.
        max_messages: at most so many, else the oldest go.
        max_bytes: at most so much, else the oldest go.
        max_message_bytes: a larger message is refused.
        max_messages_per_subject: at most so many of one subject, else its oldest go.
        replicas: copies, 1 to 5.
        storage: ``file`` or ``memory``.
        dedupe_window_seconds: for how long a message of the same id is dropped.
        external: somebody else looks after it: it is read and published to, and never created or
            widened.

    Raises:
        StreamError: the name or a subject is malformed, or is one of the chassis' own; or a value
            is not one of those above.

    """

    name: str
    subjects: tuple[str, ...]
    retention: Literal["limits", "interest", "workqueue"] = "limits"
    max_age_seconds: float | None = WEEK_SECONDS
    max_messages: int | None = None
    max_bytes: int | None = None
    max_message_bytes: int | None = None
    max_messages_per_subject: int | None = 100_000
    replicas: int | None = None
    storage: Literal["file", "memory"] = "file"
    dedupe_window_seconds: float | None = None
    external: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise StreamError(
                f"{self.name!r} is not the name of a stream: "
                "no white space, '.', '*', '>' or slashes"
            )
        if not self.external and (self.name in _OWN_NAMES or self.name.startswith(_OWN_PREFIXES)):
            raise StreamError(
                f"stream {self.name} is the chassis' own: choose another name "
                f"(for {', '.join(self.subjects)})"
            )
        if isinstance(self.subjects, str):
            raise StreamError(
                f"stream {self.name}: subjects is the text {self.subjects!r}, not a tuple: "
                f"subjects=({self.subjects!r},)"
            )
        object.__setattr__(self, "subjects", tuple(self.subjects))
        if not self.subjects:
            raise StreamError(f"stream {self.name} takes no subject: subjects=('orders.>',)")
        for subject in self.subjects:
            if not _THEIRS.fullmatch(subject):
                raise StreamError(f"stream {self.name}: {subject!r} is not a subject or filter")
            own = next((own for own in _OWN_SUBJECTS if overlap(own, subject)), None)
            if own is not None and not self.external:
                raise StreamError(
                    f"stream {self.name}: {subject!r} takes what is the chassis' own, {own}"
                )
        for one, other in combinations(self.subjects, 2):
            if overlap(one, other):
                raise StreamError(
                    f"stream {self.name}: {one!r} and {other!r} overlap, and a stream takes a "
                    "subject once"
                )
        self._check_values()

    def _check_values(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise StreamError(
                    f"stream {self.name}: {name} is {getattr(self, name)!r}: it must be one of "
                    f"{', '.join(known)}"
                )
        for name in _ABOVE_ZERO:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise StreamError(
                    f"stream {self.name}: {name} is {value}: it must be above 0, or None"
                )
        if self.replicas is not None and self.replicas > _MOST_REPLICAS:
            raise StreamError(
                f"stream {self.name}: replicas is {self.replicas}: it must be 1 to {_MOST_REPLICAS}"
            )

    def holds(self, subject: str) -> bool:
        """Tell whether it takes the subject, or all that a filter matches."""
        return any(covers(own, subject) for own in self.subjects)


class Placed(Protocol):
    """What a table needs of a contract; `shared.events.Contract` has it."""

    @property
    def subject(self) -> str:
        """Its subject or filter."""

    @property
    def stream(self) -> StreamDefinition | str | None:
        """The stream that it names by itself, if it does."""


class StreamTable:
    """Definitions of streams, by which to find the one that holds a subject.

    It is never changed; what is added makes another table.

    >>> streams = StreamTable([StreamDefinition("BILLING", ("evt.invoice.>", "cmd.invoice.>"))])
    >>> streams.holding("evt.invoice.paid").name, streams.holding("evt.parcel.sent").name
    ('BILLING', 'PARCEL')

    Args:
        definitions: of streams; one that is given twice counts once.

    Raises:
        StreamError: two definitions contradict each other, or take the same subject.

    """

    def __init__(self, definitions: Iterable[StreamDefinition] = ()) -> None:
        self._by_name: dict[str, StreamDefinition] = {}
        for definition in definitions:
            known = self._by_name.setdefault(definition.name, definition)
            if known != definition:
                raise StreamError(
                    f"stream {definition.name} is defined twice: {_difference(known, definition)}"
                )
        for one, other in combinations(self, 2):
            _refuse_overlap(one, other)

    def __iter__(self) -> Iterator[StreamDefinition]:
        return iter(self._by_name.values())

    def __getitem__(self, name: str) -> StreamDefinition:
        """Return the definition of that name; `KeyError` without."""
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"StreamTable({', '.join(self._by_name)})"

    def holding(self, subject: str) -> StreamDefinition:
        """Return the stream that holds a subject, or that a subscriber's filter reads from.

        Definitions count before the convention.

        Raises:
            StreamError: no definition holds it, and the convention does not tell; or a stream
                defined here takes a part of what the filter, or the stream by convention, takes.

        """
        for definition in self:
            if definition.holds(subject):
                return definition
        for definition in self:
            if any(overlap(own, subject) for own in definition.subjects):
                raise StreamError(
                    f"{subject!r} reaches beyond stream {definition.name}, which takes "
                    f"{', '.join(definition.subjects)}: narrow the one, or widen the other"
                )
        by_convention = conventional(subject)
        for definition in self:
            if definition.name == by_convention.name:
                raise StreamError(
                    f"no stream holds {subject!r}: {definition.name} is defined without it, and "
                    f"takes {', '.join(definition.subjects)}"
                )
            _refuse_overlap(definition, by_convention)
        return by_convention

    def of(self, contract: Placed) -> StreamDefinition:
        """Return the stream of a contract: the one it names, else the one that holds its subject.

        Raises:
            StreamError: as of `holding`; or the stream that it names does not take its subject.

        """
        return self.including([contract]).holding(contract.subject)

    def including(self, contracts: Iterable[Placed]) -> StreamTable:
        """Return the table with the streams that contracts name by themselves.

        A stream of which only the name is told is taken for somebody else's, `external`.

        Raises:
            StreamError: they contradict those here, or one another.

        """
        added: list[StreamDefinition] = []
        theirs: dict[str, list[str]] = {}
        for contract in contracts:
            if isinstance(contract.stream, StreamDefinition):
                added.append(contract.stream)
                _refuse_outside(contract.stream, contract.subject)
            elif contract.stream is not None and contract.stream in self:
                _refuse_outside(self[contract.stream], contract.subject)
            elif contract.stream is not None:
                theirs.setdefault(contract.stream, []).append(contract.subject)
        defined = StreamTable([*self, *added])
        for name, subjects in theirs.items():
            if name in defined:
                for subject in subjects:
                    _refuse_outside(defined[name], subject)
            else:
                added.append(StreamDefinition(name, united(subjects), external=True))
        return StreamTable([*self, *added])

    def adjusted(self, changes: Mapping[str, Mapping[str, object]]) -> StreamTable:
        """Return the table with values changed or streams added, as settings say them.

        Args:
            changes: by the stream's name, the values to set. Without ``subjects`` a name that is
                not in the table is that of a stream by convention.

        Raises:
            StreamError: a value does not fit, or the streams then contradict each other.

        """
        table = dict(self._by_name)
        for given, values in changes.items():
            name = given if given in table else given.upper()
            base = table.get(name)
            if base is None and "subjects" not in values:
                base = conventional(f"evt.{given.lower()}.>")
            try:
                if base is not None:
                    table[base.name] = replace(base, **values)  # type: ignore[arg-type]
                else:
                    table[given] = StreamDefinition(given, **values)  # type: ignore[arg-type]
            except TypeError as error:
                raise StreamError(f"stream {given}: {error}") from error
        return StreamTable(table.values())


def conventional(subject: str) -> StreamDefinition:
    """Return the stream that holds a subject or filter by convention: the one of its domain.

    Raises:
        StreamError: it is not of the form that has a domain, or the stream would be the chassis'
            own.

    """
    match = _FILTER.fullmatch(subject)
    if match is None:
        raise StreamError(
            f"no stream holds {subject!r}: by convention only evt.<domain>.<...> and "
            "cmd.<domain>.<...> have one. Name it, Contract(..., stream='ORDERS'), or define it, "
            f"Service(..., streams=[StreamDefinition('ORDERS', ({subject!r},))])"
        )
    domain = match[1]
    if domain.upper() in _OWN_NAMES or domain.upper().startswith(_OWN_PREFIXES):
        raise StreamError(
            f"stream {domain.upper()} is the chassis' own, and by convention it would hold "
            f"{subject!r}: choose another domain than {domain!r}, or define a stream of another "
            f"name for it, StreamDefinition('MY_{domain.upper()}', ('evt.{domain}.>', "
            f"'cmd.{domain}.>'))"
        )
    return StreamDefinition(domain.upper(), (f"cmd.{domain}.>", f"evt.{domain}.>"))


CONVENTION = StreamTable()
"""No definition: the convention alone."""


def is_literal(subject: str) -> bool:
    """Tell whether a subject is one, rather than a filter of several."""
    return not {"*", ">"} & set(subject.split("."))


def check_filter(subject: str) -> str:
    """Return a subject or filter unchanged.

    Raises:
        StreamError: it is not one; or it begins with ``cmd.`` or ``evt.`` and has no domain, or
            other characters than letters, digits, '-' and '_' in it.

    """
    if subject.startswith(("cmd.", "evt.")):
        if _FILTER.fullmatch(subject) is None:
            wildcards = (
                "" if is_literal(subject) else ", '*' and '>' after the domain, and '>' at the end"
            )
            raise StreamError(
                f"{subject!r} is not a subject: expected cmd.<domain>.<...> or "
                f"evt.<domain>.<...> in letters, digits, '-' and '_'{wildcards}"
            )
    elif _THEIRS.fullmatch(subject) is None:
        raise StreamError(
            f"{subject!r} is not a subject: expected tokens joined by '.', without white space, "
            "and '>' only as the last"
        )
    return subject


def covers(wide: str, narrow: str) -> bool:
    """Tell whether every subject that matches `narrow` matches `wide`.

    >>> covers("evt.order.>", "evt.order.*"), covers("evt.order.*", "evt.order.>")
    (True, False)
    """
    wide_tokens, narrow_tokens = wide.split("."), narrow.split(".")
    for index, token in enumerate(wide_tokens):
        if token == ">":  # noqa: S105 - a token of a subject
            return len(narrow_tokens) > index
        if index >= len(narrow_tokens) or narrow_tokens[index] == ">":
            return False
        if token not in ("*", narrow_tokens[index]):
            return False
    return len(wide_tokens) == len(narrow_tokens)


def overlap(one: str, other: str) -> bool:
    """Tell whether some subject matches both filters."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)


def united(subjects: Iterable[str]) -> tuple[str, ...]:
    """Return the subjects without those that another one covers."""
    unique = list(dict.fromkeys(subjects))
    return tuple(s for s in unique if not any(o != s and covers(o, s) for o in unique))


def _refuse_overlap(one: StreamDefinition, other: StreamDefinition) -> None:
    for left in one.subjects:
        for right in other.subjects:
            if overlap(left, right):
                raise StreamError(
                    f"streams {one.name} and {other.name} overlap: {one.name} takes {left}, "
                    f"{other.name} takes {right}, and a subject is in one stream"
                )


def _refuse_outside(definition: StreamDefinition, subject: str) -> None:
    if not definition.holds(subject):
        raise StreamError(
            f"{subject!r} names stream {definition.name}, which takes "
            f"{', '.join(definition.subjects)} only"
        )


def _difference(one: StreamDefinition, other: StreamDefinition) -> str:
    return "; ".join(
        f"{each.name} is {getattr(one, each.name)!r} here and {getattr(other, each.name)!r} there"
        for each in fields(StreamDefinition)
        if getattr(one, each.name) != getattr(other, each.name)
    )
