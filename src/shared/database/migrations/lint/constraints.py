"""Rules about constraints."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from shared.database.migrations.lint.problem import IMPORT, SHARE_ROW, Known, Problem, list_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.database.migrations.sql_statement import Reader


CONSTRAINTS = frozenset(
    {"constraint", "check", "foreign", "unique", "primary", "exclude", "like", "not"}
)


def add_constraint(table: str, action: Reader, known: Known) -> Iterator[Problem]:
    """Examine ADD CONSTRAINT."""
    name = action.name() if action.take("constraint") else ""
    kind = action.take_any("check", "foreign key", "unique", "primary key", "exclude", "not null")
    rest = action.rest
    words = " ".join(rest)
    known.added.add((table, name))
    valid = "not valid" not in words
    if kind == "not null":
        known.not_null[table, name] = (rest[0], valid)
        if valid:
            yield not_null_problem(table, rest[0])
    elif kind == "check":
        match = re.fullmatch(r"\(+ ?(\S+) is not null ?\)+( not valid)?", words)
        if match:
            known.not_null[table, name] = (match[1], valid)
        if valid:
            condition = words.removeprefix("( ").removesuffix(" )")
            yield constraint_problem(table, name, kind, condition)
    elif kind == "foreign key" and valid:
        yield constraint_problem(table, name, kind, words)
    elif kind in {"unique", "primary key"} and not words.startswith("using index"):
        action.take("nulls not distinct")
        action.take("nulls distinct")
        action.take("(")
        columns = [" ".join(part.rest) for part in action.parts()]
        yield unique_problem(table, name, columns, primary=kind == "primary key")
    elif kind == "exclude":
        yield Problem(
            "unique",
            f"{table} is locked until the index of {name} is built, and no form builds it before",
            "# a new table with the constraint, filled in batches; or, for a small table,\n"
            "# lint-ok unique: <how few rows it has>",
        )


def constraint_problem(table: str, name: str, kind: str, words: str, *, split: str = "") -> Problem:
    """Return what adding a CHECK or a FOREIGN KEY that is checked at once does."""
    before = f"{split}\n" if split else ""
    if kind == "foreign key":
        return Problem(
            "constraint",
            f"all rows of {table} are looked up while it and the other table take no writes",
            f"{before}# in a revision of its own\n{IMPORT}\n\n"
            f'operations.add_foreign_key(op, "{name}", "{table}", {_foreign(words)})',
            SHARE_ROW,
        )
    return Problem(
        "constraint",
        f"all rows of {table} are read while nobody may use it",
        f"{before}# in a revision of its own\n{IMPORT}\n\n"
        f'operations.add_check(op, "{name}", "{table}", "{words or "..."}")',
    )


def _foreign(words: str) -> str:
    match = re.match(r"\( (.+?) \) references (.+?) \( (.+?) \)", words)
    if match is None:
        return '["..."], "...", ["..."]'
    here, other, there = match[1].split(" , "), match[2].split(" . ")[-1], match[3].split(" , ")
    return f'{list_of(here)}, "{other}", {list_of(there)}'


def unique_problem(table: str, name: str, columns: list[str], *, primary: bool = False) -> Problem:
    """Return what adding UNIQUE or PRIMARY KEY does."""
    extra = ", primary=True" if primary else ""
    return Problem(
        "unique",
        f"{table} is locked until the index of {name or 'the constraint'} is built",
        f"# in a revision of its own\n{IMPORT}\n\n"
        f'operations.add_unique(op, "{name}", "{table}", {list_of(columns)}{extra})',
    )


def not_null_problem(table: str, column: str) -> Problem:
    """Return what SET NOT NULL does."""
    return Problem(
        "set-not-null",
        f"all rows of {table} are read while nobody may use it; not so where a validated "
        f"CHECK ({column} IS NOT NULL) stands",
        f"# in a revision of its own\n{IMPORT}\n\n"
        f'operations.set_not_null(op, "{table}", "{column}")',
    )
