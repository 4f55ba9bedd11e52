"""Rules about columns, and their types."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

from shared.database.migrations.lint.constraints import (
    constraint_problem,
    not_null_problem,
    unique_problem,
)
from shared.database.migrations.lint.problem import IMPORT, Known, Problem
from shared.database.migrations.sql_statement import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator


_COLUMN_WORDS = (
    *("constraint", "not", "null", "default", "check", "unique", "primary", "references"),
    *("generated", "collate", "storage", "compression", "deferrable", "initially", "using", ","),
)
_SERIALS = {"serial", "bigserial", "smallserial", "serial4", "serial8", "serial2"}
_ALIASES = {
    "character varying": "varchar",
    "decimal": "numeric",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "bit varying": "varbit",
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "bool": "boolean",
    "character": "char",
}
# Functions that are evaluated once for the statement; each other one is taken for volatile.
_STABLE = frozenset(
    {
        *("now", "transaction_timestamp", "statement_timestamp", "current_setting", "to_timestamp"),
        *("coalesce", "cast", "nullif", "greatest", "least", "lower", "upper", "md5", "date_trunc"),
        *("make_date", "make_interval", "make_timestamptz", "to_jsonb", "jsonb_build_object"),
        *("jsonb_build_array", "json_build_object", "to_date", "to_char", "timezone", "concat"),
        *("numeric", "varchar", "char", "timestamp", "timestamptz", "interval", "time", "bit"),
        *("varying", "decimal", "in", "and", "or", "array", "glam_merchant"),
    }
)


def add_column(table: str, action: Reader, known: Known) -> Iterator[Problem]:
    """Examine ADD COLUMN."""
    column = action.name()
    kind = type_of(action)
    known.types[table, column] = kind
    rest = action.rest
    words = " ".join(rest)
    add = f'op.add_column("{table}", sa.Column("{column}", ..., nullable=True))'
    fill = f'operations.backfill(op, "{table}", "SET {column} = ...", where="{column} IS NULL")'
    default = _default(rest)
    identity = kind in _SERIALS or re.search(r"generated (always|by default) as identity", words)
    stored = "generated always as (" in words and "stored" in rest
    volatile = _volatile(default)
    if identity or stored or volatile:
        what = "an identity" if identity else "a stored expression" if stored else volatile
        yield Problem(
            "table-rewrite",
            f"every row of {table} is written anew to be given {what}",
            f'{add}\nop.alter_column("{table}", "{column}", server_default=...)  # of new rows\n'
            f"# in the next revision, for the old ones\n{IMPORT}\n\n{fill}"
            if not stored
            else "# PostgreSQL 18 computes it on reading: GENERATED ALWAYS AS (...) VIRTUAL;\n"
            "# before that, a plain column, a trigger, and a backfill in batches",
        )
    elif "not null" in words and (not default or default == ("null",)):
        yield Problem(
            "add-column-not-null",
            f"it fails when {table} has rows, and code that still runs does not fill {column}",
            f'op.add_column("{table}", sa.Column("{column}", ..., nullable=False, '
            f'server_default="..."))  # a constant costs no rewrite\n# or\n{add}\n'
            f"# and in the next revision\n{IMPORT}\n\n{fill}\n"
            f'operations.set_not_null(op, "{table}", "{column}")',
        )
    if "references" in rest:
        yield constraint_problem(
            table, f"fk_{table}_{column}", "foreign key", f"({column})", split=add
        )
    if "check" in rest:
        yield constraint_problem(table, f"ck_{table}_{column}", "check", "", split=add)
    if "unique" in rest or "primary" in rest:
        yield unique_problem(table, f"uq_{table}_{column}", [column])


def alter_column(table: str, column: str, action: Reader, known: Known) -> Iterator[Problem]:
    """Examine ALTER COLUMN."""
    if action.take("set not null"):
        holds = any(
            of == table and held == (column, True) for (of, _), held in known.not_null.items()
        )
        if not holds:
            yield not_null_problem(table, column)
    elif action.take("add generated"):
        return
    elif action.take("set data type") or action.take("type"):
        new = type_of(action)
        old = known.types.get((table, column), "")
        known.types[table, column] = new
        if not _keeps_rows(old, new) or "using" in action.rest:
            yield Problem(
                "table-rewrite",
                f"{table} and its indexes are written anew for {column}: "
                f"{old or 'a type not known here'} to {new}",
                f'# 1. op.add_column("{table}", sa.Column("{column}_new", ..., nullable=True))\n'
                "# 2. a release that writes both; then, in a revision of its own:\n"
                f'operations.backfill(op, "{table}", "SET {column}_new = {column}", '
                f'where="{column}_new IS NULL AND {column} IS NOT NULL")\n'
                "# 3. a release that reads the new one; then drop the old",
            )
    elif action.take("set expression"):
        yield Problem(
            "table-rewrite",
            f"{table} is written anew for the expression of {column}",
            "# a new column beside it, filled in batches",
        )


def type_of(reader: Reader) -> str:
    """Read a type; return it as PostgreSQL names it, with its sizes."""
    words = " ".join(reader.until(*_COLUMN_WORDS))
    words = re.sub(r" ?([(),]) ?", r"\1", words).replace(" [", "[").replace("[ ]", "[]")
    words = re.sub(r"timestamp(\(\d\))? ?with time zone", r"timestamptz\1", words)
    words = re.sub(r"timestamp(\(\d\))? ?without time zone", r"timestamp\1", words)
    base, bracket, arguments = words.partition("(")
    return _ALIASES.get(base.strip(), base.strip()) + bracket + arguments


def _keeps_rows(old: str, new: str) -> bool:  # noqa: PLR0911 - a line for each family
    """Whether rows stay as they are: a limit that grows or goes, and types of one form."""
    if old == new:
        return True
    (a, sizes), (b, others) = _sizes(old), _sizes(new)
    if a == "varchar" and b in {"varchar", "text"}:
        return not others or (bool(sizes) and others[0] >= sizes[0])
    if (a, b) in {("text", "varchar"), ("cidr", "inet")}:
        return not others
    if a != b:
        return False
    if a == "numeric":
        return not others or (
            bool(sizes) and others[0] >= sizes[0] and (*sizes, 0)[1] == (*others, 0)[1]
        )
    if a in {"varbit", "timestamp", "timestamptz", "time", "interval"}:
        return not others or (bool(sizes) and others[0] >= sizes[0])
    return False


def _sizes(kind: str) -> tuple[str, tuple[int, ...]]:
    base, _, arguments = kind.partition("(")
    return base, tuple(map(int, re.findall(r"-?\d+", arguments)))


def _default(tokens: tuple[str, ...]) -> tuple[str, ...]:
    if "default" not in tokens:
        return ()
    start = tokens.index("default")
    if tokens[start - 1 : start] == ("by",):  # GENERATED BY DEFAULT
        return ()
    return Reader(tokens[start + 1 :]).until(*_COLUMN_WORDS)


def _volatile(default: tuple[str, ...]) -> str:
    calls = [
        name
        for name, bracket in pairwise(default)
        if bracket == "(" and re.fullmatch(r"[a-z_]\w*", name) and name not in _STABLE
    ]
    return f"{calls[0]}() of its own" if calls else ""
