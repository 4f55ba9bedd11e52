"""SQL statements as spans and logs tell of them, and those that they leave out."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import ExecutionContext


INTERNAL = {"glam_internal": True}
"""Execution options of a statement that the library adds to a transaction, such as its tenant's.

Spans and the log of slow statements are about what the service asked for, and leave it out.
"""

_MAX_LENGTH = 255

_NAME = r"""(?: "[^"]+" | [^\W\d][\w$]* )"""
_TOKEN = re.compile(
    rf"""
    (?P<skip> '(?:[^']|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ | --[^\n]* | /\*.*?\*/ | "[^"]*"
      | \b(?:DISTINCT\s+FROM | FOR\s+(?:NO\s+KEY\s+)?UPDATE | (?:DO|ON)\s+(?:UPDATE|DELETE))\b
    )
    | (?P<parenthesis> [()] )
    | (?<![\w.$]) (?P<select> SELECT )\b
    | (?<![\w.$])
      (?P<verb> (?:INSERT|MERGE)\s+INTO | UPDATE | (?:DELETE\s+)?FROM | JOIN )\b
      (?: \s+ (?:ONLY|LATERAL)\b )?
      (?: \s+ (?P<target> {_NAME} (?:\.{_NAME})* ) (?= \s* (?P<call>\()? ) )?
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_WORD = re.compile(r"[A-Za-z]+")


@lru_cache(maxsize=1024)
def summary_of(statement: str) -> str:
    """Tell what a statement does to which tables, in the order in which it says so.

    Follows OpenTelemetry's "Generating a summary of the query" (semantic conventions 1.44.0,
    `db/database-spans.md`): names stay as they are written, and values never appear. Functions in
    the place of tables, and all but the first of several tables behind one FROM, are left out.

    >>> summary_of("INSERT INTO ledger (a) SELECT a FROM orders JOIN lines USING (id)")
    'INSERT ledger SELECT orders lines'
    """
    words: list[str] = []
    in_query = [False]  # for each open parenthesis: not so in EXTRACT(epoch FROM created_at)
    for token in _TOKEN.finditer(statement):
        if token["parenthesis"] == "(":
            in_query.append(False)
        elif token["parenthesis"] == ")" and len(in_query) > 1:
            in_query.pop()
        elif token["select"]:
            in_query[-1] = True
            words.append("SELECT")
        elif token["verb"]:
            verb, target = token["verb"].split()[0].upper(), token["target"]
            if verb not in {"FROM", "JOIN"}:
                in_query[-1] = True
                words += [verb, target] if target else [verb]
            elif target and in_query[-1] and not token["call"]:
                words.append(target)
    if not words:
        first = _WORD.search(_COMMENT.sub(" ", statement))
        return first[0].upper() if first else "SQL"
    return " ".join(words)[:_MAX_LENGTH]


def is_internal(context: ExecutionContext) -> bool:
    """Whether the statement has the options `INTERNAL`."""
    return bool(context.execution_options.get("glam_internal"))


def quoted_name(name: str) -> str:
    """Return a name as it stands in SQL."""
    return '"' + name.replace('"', '""') + '"'


def quoted_text(text: str) -> str:
    """Return a text as it stands in SQL."""
    return "'" + text.replace("'", "''") + "'"
