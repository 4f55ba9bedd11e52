"""A dead letter's body changed by hand before it is replayed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING

import pydantic
from pydantic_core import from_json, to_json

from shared.errors import ValidationError
from shared.events import Envelope, EnvelopeError
from shared.events.streams import covers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from shared.events import Contract
    from shared.messaging.dead_letters.dead_letter import DeadLetter


@dataclass(frozen=True, slots=True)
class BodyChange:
    """One value of the body that was changed; None where there was, or is, nothing."""

    path: str
    before: object
    after: object


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterEdit:
    """What to change in a body before it is replayed.

    Attributes:
        body: the whole new body, in place of the old one.
        values: values to set in the body, which is JSON then, by their path: names of fields, and
            places in lists counted from 0, joined by dots (`payload.lines.0.price`). What the path
            leads through has to be there; its last field may be new.

    Raises:
        ValidationError: neither is given.
    """

    body: bytes | None = None
    values: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.body is None and not self.values:
            raise ValidationError("an edit needs a new body, or values to set", field="values")

    def applied_to(self, body: bytes) -> bytes:
        """Return the edited body.

        Raises:
            ValidationError: the body is not JSON, or a path is not in the body.
        """
        body = body if self.body is None else self.body
        if not self.values:
            return body
        try:
            document = from_json(body)
        except ValueError as error:
            raise ValidationError(
                "the body is not valid JSON, so no value can be set in it; replace it whole",
                field="values",
            ) from error
        for path, value in self.values.items():
            _set(document, path, value)
        return to_json(document)


def edit_digest(body: bytes) -> str:
    """Return what tells one edited body from another."""
    return sha256(body).hexdigest()[:16]


def check_edited(letter: DeadLetter, body: bytes, contracts: Iterable[Contract[Any]]) -> None:
    """See that an edited body can be handled, and is still the same event.

    An inbox knows a message by its event id. Under another one, a handler whose effect had been
    committed after all would have it twice.

    Raises:
        ValidationError: it is not an envelope though it was one (or its subject has a contract),
            does not fit its contract, or is another event.
    """
    contract = next((c for c in contracts if covers(c.subject, letter.subject)), None)
    if contract is not None and not contract.codec.enveloped:
        _check_fits(contract, replace(letter, body=body))  # its event id is not in the body
        return
    before = _envelope(letter.body, letter.headers)
    if before is None and contract is None:
        return  # a form of its own, of which nothing is known
    after = Envelope.from_message(body, letter.headers)
    for name in ("event_id", "subject"):
        was = getattr(before, name) if before else _field(letter.body, name)
        if was is not None and getattr(after, name) != was:
            raise ValidationError(
                f"an edited message keeps its {name}, by which its handlers know it: "
                f"it was {was!r}",
                field=name,
                value=getattr(after, name),
            )
    if contract is not None:
        _check_fits(contract, replace(letter, body=body))


def _check_fits(contract: Contract[Any], letter: DeadLetter) -> None:
    try:
        contract.codec.decode(contract, letter).payload()
    except pydantic.ValidationError as error:
        told = "; ".join(
            f"{'.'.join(('payload', *map(str, fault['loc'])))}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False)
        )
        raise ValidationError(
            f"the edited body does not fit the contract of {letter.subject}: {told}",
            field="payload",
        ) from error


def differences(before: bytes, after: bytes) -> tuple[BodyChange, ...]:
    """Return what differs between two bodies, value by value where both are JSON."""
    try:
        return tuple(_differences("", from_json(before), from_json(after)))
    except ValueError:
        return (BodyChange("", f"{len(before)} bytes", f"{len(after)} bytes"),)


def _differences(path: str, before: object, after: object) -> Iterable[BodyChange]:
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = [(name, before.get(name), after.get(name)) for name in {**before, **after}]
    elif isinstance(before, list) and isinstance(after, list):
        longest = range(max(len(before), len(after)))
        pairs = [(str(n), _at(before, n), _at(after, n)) for n in longest]
    elif before != after:
        yield BodyChange(path, before, after)
        return
    else:
        return
    for name, was, is_ in pairs:
        yield from _differences(f"{path}.{name}" if path else name, was, is_)


def _at(values: list[object], place: int) -> object:
    return values[place] if place < len(values) else None


def _set(document: object, path: str, value: object) -> None:
    *way, last = path.split(".")
    place = document
    try:
        for name in way:
            place = place[int(name)] if isinstance(place, list) else place[name]  # type: ignore[index]
        if isinstance(place, list):
            place[int(last)] = value
        elif isinstance(place, dict) and last:
            place[last] = value
        else:
            raise TypeError
    except (LookupError, ValueError, TypeError) as error:
        raise ValidationError(
            f"{path!r} is not in the body; a path reads like payload.lines.0.price",
            field="values",
            value=path,
        ) from error


def _envelope(body: bytes, headers: Mapping[str, str]) -> Envelope | None:
    try:
        return Envelope.from_message(body, headers)
    except EnvelopeError:
        return None


def _field(body: bytes, name: str) -> object:
    try:
        document = from_json(body)
    except ValueError:
        return None
    return document.get(name) if isinstance(document, dict) else None
