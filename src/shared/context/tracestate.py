"""The ``tracestate`` header, as W3C Trace Context prescribes.

https://www.w3.org/TR/trace-context-1/#tracestate-header; the sections named here are level 1's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_MEMBERS = 32  # Section 3.3.1.2.
_MAX_LENGTH = 512  # Section 3.3.1.5: at least so much has to be passed on; here it is the limit.
_LARGE_MEMBER = 128

# Sections 3.3.1.3.1 and 3.3.1.3.2. Level 2 lets a key begin with a digit and hold an "@" anywhere.
# The first is taken; of the second only what level 1 knows, a tenant of up to 241 characters and a
# system of up to 14, since a receiver of level 1 drops the whole header for any other.
_KEY = re.compile(r"[a-z0-9](?:[a-z0-9_*/-]{0,255}|[a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})")
_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


def normalise_tracestate(value: str | Iterable[str] | None) -> str:
    """Return the members of a ``tracestate`` in order, or ``""`` if it breaks the grammar.

    Args:
        value: the header's value, or the values of all such headers in the order they came: they
            are one list (RFC 9110, section 5.3).
    """
    if value is None:
        return ""
    # Section 3.3.1.1: blanks around a member, and empty members, mean nothing.
    combined = value if isinstance(value, str) else ",".join(value)
    members = [member for part in combined.split(",") if (member := part.strip(" \t"))]
    if len(members) > _MAX_MEMBERS:
        return ""
    # Section 3.3.1.4: one member for each key.
    keys: set[str] = set()
    for member in members:
        key, _, content = member.partition("=")
        if key in keys or not _KEY.fullmatch(key) or not _VALUE.fullmatch(content):
            return ""
        keys.add(key)
    return _shorten(members)


def _shorten(members: list[str]) -> str:
    # Section 3.3.1.5: whole members go, the large ones first, then from the end.
    while len(",".join(members)) > _MAX_LENGTH:
        large = [index for index, member in enumerate(members) if len(member) > _LARGE_MEMBER]
        del members[large[-1] if large else -1]
    return ",".join(members)
