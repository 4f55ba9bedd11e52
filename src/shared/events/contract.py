"""A contract: what is spoken on one subject."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Generic, cast

from pydantic import BaseModel
from pydantic_core import to_json

from shared.errors import ValidationError
from shared.events.codec import ENVELOPE, Codec
from shared.events.envelope import Envelope, P
from shared.events.streams import StreamDefinition, check_filter, is_literal

Upcast = Callable[[dict[str, Any]], Mapping[str, Any]]
"""Takes the payload of one version, as JSON, and returns that of the next; it may change it."""

# What a schema tells people, and no validator obeys.
_TOLD = frozenset({"title", "description", "examples", "$comment", "deprecated"})

_NAMES = frozenset({"properties", "patternProperties", "$defs"})
_VALUES = frozenset({"const", "default"})


_DURABLE = re.compile(r"[^\s.*>/\\]+")


class UpcastError(ValidationError):
    """A payload is of a version that the reader has no way from; the message says the way."""


@dataclass(frozen=True, slots=True)
class Contract(Generic[P]):
    """A subject, the payload spoken on it, and the version of that payload's form.

    >>> PAID = Contract("evt.invoice.paid", Paid)
    >>> PAID.write(Paid(number="7"))
    b'{"number":"7"}'
    >>> ORDERS = Contract("orders.*.created", Paid, stream="ORDERS", codec=JSON)
    >>> PAID.is_literal, ORDERS.is_literal
    (True, False)

    Payloads of older versions are read through the functions given to `upcasts`, one for each step.

    Args:
        subject: `evt.<domain>.<...>` for what happened, `cmd.<domain>.<...>` for what is asked, or
            any other subject. A filter, with `*` or `>` among its tokens, can be handled, not
            published.
        payload: the type of what is said.
        version: of the payload's form.
        stream: what holds the subject, where neither the service's streams nor the convention
            tell: a definition, or the name of a stream that somebody else looks after.
        durable: the name of the consumer that handles it, if there is one already; by default
            the service and the handler name it.
        codec: how a message is read and written; in our envelope by default.

    Raises:
        TypeError: the payload is not a pydantic model.
        ValueError: the subject is malformed, the durable is not a name, or the version is below 1.

    """

    subject: str
    payload: type[P]
    version: int = 1
    stream: StreamDefinition | str | None = field(default=None, compare=False, kw_only=True)
    durable: str | None = field(default=None, compare=False, kw_only=True)
    codec: Codec = field(default=ENVELOPE, kw_only=True)
    _upcasts: dict[int, Upcast] = field(
        default_factory=dict, init=False, repr=False, compare=False, hash=False
    )

    def __post_init__(self) -> None:
        check_filter(self.subject)
        if not (isinstance(self.payload, type) and issubclass(self.payload, BaseModel)):
            raise TypeError(
                f"{self.subject}: payload is {self.payload!r}: it must be a pydantic model, "
                "class Paid(BaseModel): ..."
            )
        if self.version < 1:
            raise ValueError(f"{self.subject}: version is {self.version}: it must be 1 or more")
        if self.durable is not None and not _DURABLE.fullmatch(self.durable):
            raise ValueError(
                f"{self.durable!r} is not the name of a durable consumer: "
                "no white space, '.', '*', '>' or slashes"
            )

    @property
    def is_literal(self) -> bool:
        """Whether it names one subject, and so can be published."""
        return is_literal(self.subject)

    @property
    def is_command(self) -> bool:
        """Whether it asks for something: who handles it looks after its stream."""
        return self.subject.startswith("cmd.")

    def upcasts(self, *, from_version: int) -> Callable[[Upcast], Upcast]:
        """Register the function that takes a payload from one version to the next.

        >>> PAID_2 = Contract("evt.invoice.paid", PaidIn, version=2)
        >>> @PAID_2.upcasts(from_version=1)
        ... def with_currency(payload: dict[str, Any]) -> dict[str, Any]:
        ...     return {**payload, "currency": "EUR"}
        >>> PAID_2.read(Envelope.create(PAID, Paid(number="7"), source_service="till"))
        PaidIn(number='7', currency='EUR')

        Raises:
            ValueError: no version follows that one, or the step is taken already.

        """

        def register(function: Upcast) -> Upcast:
            self.upcast(from_version, function)
            return function

        return register

    def upcast(self, from_version: int, function: Upcast) -> None:
        """Do as `upcasts` with a function that is at hand."""
        if not 1 <= from_version < self.version:
            raise ValueError(
                f"{self.subject} is of version {self.version}: "
                f"a step can start at 1 to {self.version - 1}, not at {from_version}"
            )
        known = self._upcasts.setdefault(from_version, function)
        if known is not function:
            raise ValueError(
                f"{self.subject} has a step from version {from_version} already: "
                f"{getattr(known, '__qualname__', known)}"
            )

    def write(self, payload: P) -> bytes:
        """Return the payload as JSON.

        Raises:
            ValueError: JSON has no form for it, or the contract could not read it back (then a
                `pydantic.ValidationError`).

        """
        written = to_json(payload)
        self.payload.__pydantic_validator__.validate_json(written)
        return written

    def read(self, envelope: Envelope) -> P:
        """Return the payload of an envelope as its type.

        The version is the one in the envelope's metadata; without a number there, it is taken for
        the contract's own. A newer version is read as far as the payload's type finds its fields.

        Raises:
            pydantic.ValidationError: the payload does not fit.
            UpcastError: a step from the payload's version is missing, or a newer version does not
                fit.

        """
        sent = _number(envelope.metadata.get("version"))
        if sent is None or sent == self.version:
            return self._read(envelope)
        if sent < self.version:
            return self.payload.model_validate_json(self._upcasted(envelope.payload, sent))
        try:
            return self._read(envelope)
        except ValueError as error:
            raise UpcastError(
                f"{self.subject} was sent in version {sent}, and this reader knows version "
                f"{self.version}, which it does not fit: update the contract here first",
                details={"sent": sent, "known": self.version},
            ) from error

    def _read(self, envelope: Envelope) -> P:
        # Read as JSON, not as Python values: models may be strict, or spell bytes in base64.
        as_it_came = envelope.payload_as_it_came()
        if as_it_came is not None:
            try:
                return self.payload.model_validate_json(as_it_came)
            except ValueError:  # it was no JSON, or does not fit: then the other way says the same
                pass
        return self.payload.model_validate_json(to_json(envelope.payload))

    @property
    def readable_versions(self) -> range:
        """The versions that `read` finds a way from, the contract's own among them."""
        first = self.version
        while first - 1 in self._upcasts:
            first -= 1
        return range(first, self.version + 1)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of the payload as it is read."""
        return self.payload.model_json_schema(mode="validation")

    @property
    def schema_hash(self) -> str:
        """64 hex digits that are the same for payloads of the same form.

        The SHA-256 of the schema as canonical JSON, without titles, descriptions and examples. The
        order of fields does not matter, nor in which order a field's choices are listed.
        """
        canonical = json.dumps(self.form(), sort_keys=True, separators=(",", ":"))
        return sha256(canonical.encode()).hexdigest()

    def form(self) -> dict[str, Any]:
        """Return what of the schema a validator obeys, always in the same order.

        Titles, descriptions and examples are left out; defaults are not.
        """
        return cast("dict[str, Any]", _form(self.schema()))

    def _upcasted(self, payload: Mapping[str, Any], sent: int) -> bytes:
        # A copy: who reads the envelope next finds it as it came.
        document: Mapping[str, Any] = json.loads(to_json(payload))
        for version in range(sent, self.version):
            step = self._upcasts.get(version)
            if step is None:
                raise UpcastError(
                    f"{self.subject} was sent in version {sent}, and there is no step from "
                    f"{version} to {version + 1}; add it beside the contract: "
                    f"@<contract>.upcasts(from_version={version})",
                    details={"sent": sent, "known": self.version, "missing": version},
                )
            document = step(dict(document))
        return to_json(document)


def _number(version: object) -> int | None:
    text = str(version)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 and int(text) else None  # noqa: PLR2004


def _form(schema: object, *, names: bool = False, ordered: bool = False) -> object:
    """Return what of a schema a validator obeys; `names` are a mapping from fields, not words."""
    if isinstance(schema, dict):
        return {
            key: value
            if not names and key in _VALUES
            else _form(value, names=not names and key in _NAMES, ordered=key == "prefixItems")
            for key, value in sorted(schema.items())
            if names or key not in _TOLD
        }
    if isinstance(schema, list):
        parts = [_form(item) for item in schema]
        if not ordered:
            parts.sort(key=lambda part: json.dumps(part, sort_keys=True))
        return parts
    return schema
