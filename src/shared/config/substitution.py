"""`${VAR}` and `${VAR:-default}` in a text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_REFERENCE = re.compile(r"\$(\$\{)|\$\{(\w+)(?::-([^}]*))?\}")


def substitute(text: str, variables: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    """Fill the references in a text, and name those that have neither a value nor a default.

    As in a shell, the default of `${VAR:-default}` also stands in for an empty value.
    `$${VAR}` is the text `${VAR}`. A reference that cannot be filled is left as it is.
    """
    missing: list[str] = []

    def fill(match: re.Match[str]) -> str:
        escaped, name, default = match.groups()
        if escaped:
            return str(escaped)
        value = variables.get(name)
        if default is not None:
            return value or str(default)
        if value is None:
            missing.append(name)
            return match[0]
        return value

    return _REFERENCE.sub(fill, text), tuple(missing)
