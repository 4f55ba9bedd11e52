"""Any object as plain JSON data, secrets hidden. Nothing here raises."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, TypeVar, cast

from shared.config import redaction
from shared.config.redaction import MASK, is_secret, redact_text
from shared.errors.details import json_safe

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEPTH = 6
_PLAIN = frozenset({bool, float, int, type(None)})
_KNOWN_NAMES = 4096

# No more than 64 characters before the @, 63 between dots (RFC 5321, section 4.5.3.1, and RFC 1035,
# section 2.3.4): the bounds keep the search linear.
_EMAIL = re.compile(r"[\w.%+'-]{1,64}@(?:[\w-]{1,63}\.)+[\w-]{2,63}")

T = TypeVar("T")


def text_of_plain(fields: Mapping[str, object], depth: int = _DEPTH) -> str | None:
    """Return all text that plain fields hold; ``None`` if they are not plain.

    Plain fields are those that `loggable_fields` gives back as they are, but for secrets in their
    text. Most lines have no others, and finding that out costs less than to go through each field:
    names are known after the first line, and of most values only the type is asked.
    """
    if not (_open_names.issuperset(fields) or _are_open(fields)):
        return None
    texts: list[str] = []
    for value in fields.values():
        kind = type(value)
        if kind is str:
            texts.append(cast("str", value))
        elif kind is dict:
            inner = cast("dict[str, object]", value)
            if depth <= 0 or not all(type(key) is str for key in inner):
                return None
            text = text_of_plain(inner, depth - 1)
            if text is None:
                return None
            texts.append(text)
        elif kind not in _PLAIN or (kind is float and not math.isfinite(cast("float", value))):
            return None
    return "\n".join(texts)


def _are_open(fields: Mapping[str, object]) -> bool:
    """Say whether no name is one of a secret, and remember them if so."""
    if any(type(name) is not str or is_secret(name) for name in fields):
        return False
    if len(_open_names) < _KNOWN_NAMES:  # names made of data must not fill the memory
        _open_names.update(fields)
    return True


_open_names: set[str] = set()


class Loggable(list[object]):
    """A list of plain JSON data whose maker has hidden its secrets: it is written as it is."""


def loggable_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """Turn fields into plain JSON data; most are text or whole numbers, and take the short way."""
    plain: dict[str, object] = {}
    for name, value in fields.items():
        kind = type(value)
        if kind is str and not is_secret(name):
            plain[name] = redact_text(cast("str", value))
        elif kind is int and not is_secret(name):
            plain[name] = value
        else:
            plain[name] = loggable(name, value)
    return plain


def loggable(name: str, value: object) -> object:
    """Turn what is logged under `name` into plain JSON data, down to six levels."""
    if type(value) is Loggable:
        return value
    return json_safe(value, depth=_DEPTH, name=name, redaction=redaction)


def without_emails(value: T) -> T:
    """Hide the e-mail addresses of plain JSON data, in keys too, and in tuples."""
    hidden: object = value
    if isinstance(value, str):
        hidden = _EMAIL.sub(MASK, value) if "@" in value else value
    elif isinstance(value, dict):
        hidden = {without_emails(key): without_emails(item) for key, item in value.items()}
    elif isinstance(value, list):
        hidden = [without_emails(item) for item in value]
    elif isinstance(value, tuple):
        hidden = tuple(without_emails(item) for item in value)
    return cast("T", hidden)
