"""The linter of revisions: steps that stop a service at work, and the form that does not.

It reads the SQL that a revision emits, not its Python. What a lock does and which change rewrites a
table is PostgreSQL's manual: ALTER TABLE, CREATE INDEX, and chapter 13.3 on locks. A table made by
the same revision is nobody's yet, so everything may be done to it.

A finding is allowed by a comment with a reason, at the statement or right above it:

    # lint-ok drop-column: nothing reads it since 1.4
    op.drop_column("orders", "note")
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from shared.database.migrations.recording import record
from shared.database.migrations.sql_statement import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from alembic.script import Script

    from shared.database.migrations.recording import Recording, Step

__all__ = ["RULES", "Finding", "lint"]

RULES = {
    "add-column-not-null": "a column NOT NULL without a default",
    "backfill": "rows changed in the transaction of a schema change",
    "concurrently-in-transaction": "CONCURRENTLY inside of a transaction",
    "constraint": "a CHECK or FOREIGN KEY that is checked while the table is locked",
    "create-index": "an index built while nobody may write",
    "drop-column": "a column dropped that running code may read",
    "drop-index": "an index dropped by waiting for everybody",
    "drop-table": "a table dropped or emptied that running code may read",
    "index-leftover": "an index built concurrently that a repeat finds broken",
    "lock-timeout": "a wait for a lock without an end",
    "lock-while-validating": "a constraint validated in the transaction that added it",
    "needs-database": "a revision whose SQL cannot be seen without a database",
    "no-downgrade": "a revision without a way back",
    "rename": "a name taken away from running code",
    "set-not-null": "SET NOT NULL that reads the table while it is locked",
    "suppression": "a lint-ok that gives no reason, names no rule or allows nothing",
    "table-rewrite": "a change that writes the whole table anew while nobody may read it",
    "unique": "a constraint that builds its index while the table is locked",
}
"""Every rule, by the name that a finding bears and that ``lint-ok`` takes."""

_EXCLUSIVE = "ACCESS EXCLUSIVE: nobody reads or writes"
_SHARE = "SHARE: nobody writes"
_SHARE_ROW = "SHARE ROW EXCLUSIVE: nobody writes"
_IMPORT = "from shared.database import operations"


@dataclass(frozen=True, slots=True)
class Finding:
    """One dangerous step."""

    rule: str
    path: str
    line: int
    revision: str
    why: str
    safe: str
    """Code to paste instead."""
    lock: str = ""
    """The lock that is held meanwhile, and what it keeps others from."""
    sql: str = ""

    def __str__(self) -> str:
        lock = f" (lock {self.lock})" if self.lock else ""
        safe = "\n".join(f"      {line}" for line in self.safe.splitlines())
        return f"{self.path}:{self.line}: {self.rule}: {self.why}{lock}\n    safe:\n{safe}"


@dataclass(slots=True)
class _Known:
    """What the revisions up to here made, as far as their SQL tells."""

    types: dict[tuple[str, str], str] = field(default_factory=dict)
    not_null: dict[tuple[str, str], tuple[str, bool]] = field(default_factory=dict)
    """Constraint that holds a column not null, by table and its name: column, validated."""
    lock_timeout: bool = True
    # Of the revision at hand:
    new: set[str] = field(default_factory=set)
    locked: bool = False
    """A table that others use is locked by this transaction."""
    changed: list[tuple[Step, str]] = field(default_factory=list)
    added: set[tuple[str, str]] = field(default_factory=set)
    """Constraints added in this transaction."""
    dropped_indexes: set[str] = field(default_factory=set)


def lint(
    scripts: Iterable[Script], *, only: Collection[str] | None = None, lock_timeout: bool = True
) -> list[Finding]:
    """Return what is dangerous in revisions, in their order.

    Args:
        scripts: all revisions, oldest first: types of columns are known from those before.
        only: the revisions whose findings are wanted; None for all.
        lock_timeout: whether the connection that migrates has one. ``Database`` gives it
            ``lock_timeout_seconds``.
    """
    known = _Known(lock_timeout=lock_timeout)
    findings: list[Finding] = []
    for script in scripts:
        recording = record(script)
        found = list(_examine(recording, known))
        if only is None or recording.revision in only:
            findings += _allowed(found, recording)
    return findings


def _examine(recording: Recording, known: _Known) -> Iterator[Finding]:
    known.new, known.dropped_indexes = set(), set()
    _begin(known)
    timeout = known.lock_timeout
    told = False

    def finding(rule: str, line: int, why: str, safe: str, lock: str = "") -> Finding:
        return Finding(rule, recording.path, line, recording.revision, why, safe, lock)

    if recording.failure is not None:
        line, words = recording.failure
        yield finding(
            "needs-database",
            line,
            f"its SQL cannot be seen without a database ({words})",
            "if not op.get_context().as_sql:\n    ...  # what asks the database",
        )
    for step in recording.upgrade:
        if not step.in_transaction:
            _begin(known)
        reader = step.statement.reader
        if reader.take_any("set local", "set session", "set") and reader.take("lock_timeout"):
            timeout = reader.rest[-1].strip("'") not in {"0", "default"}
            continue
        for problem in _problems(step, known):
            yield replace(
                finding(problem.rule, step.line, problem.why, problem.safe, problem.lock),
                sql=step.statement.text,
            )
        if known.locked and not timeout and not told:
            told = True
            yield finding(
                "lock-timeout",
                step.line,
                "it waits for its lock without an end, and everybody else waits behind it",
                "op.execute(\"SET LOCAL lock_timeout = '5s'\")",
                _EXCLUSIVE,
            )
        yield from (
            finding(
                "backfill",
                changing.line,
                f"the rows of {table} are changed in the transaction that locks a table: the lock "
                "is held until the last row is written",
                f"# in a revision of its own\n{_IMPORT}\n\n"
                f'operations.backfill(op, "{table}", "SET ...", where="...")',
                _EXCLUSIVE,
            )
            for changing, table in (known.changed if known.locked else ())
        )
        if known.locked:
            known.changed = []
    if recording.upgrade and not recording.has_downgrade:
        yield finding(
            "no-downgrade",
            _line_of_downgrade(recording.path),
            "it has no way back",
            "def downgrade() -> None:\n"
            '    raise NotImplementedError("what is gone is gone")  # or the statements back',
        )


def _begin(known: _Known) -> None:
    known.locked, known.changed, known.added = False, [], set()


@dataclass(frozen=True, slots=True)
class _Problem:
    rule: str
    why: str
    safe: str
    lock: str = _EXCLUSIVE


def _problems(step: Step, known: _Known) -> Iterator[_Problem]:
    reader = step.statement.reader
    for words, examine in _STATEMENTS.items():
        if reader.take(words):
            yield from examine(reader, known, step)
            return


def _create_table(reader: Reader, known: _Known, _step: Step) -> Iterator[_Problem]:
    reader.take("if not exists")
    table = reader.name()
    known.new.add(table)
    if reader.take("("):
        for part in reader.parts():
            if part.rest[0] not in _CONSTRAINTS:
                column = part.name()
                known.types[table, column] = _type(part)
    return iter(())


def _create_index(reader: Reader, known: _Known, step: Step) -> Iterator[_Problem]:
    unique = "unique" in step.statement.tokens[:2]
    concurrently = reader.take("concurrently")
    exists = reader.take("if not exists")
    name = "" if reader.rest[:1] == ("on",) else reader.name()
    reader.take("on")
    reader.take("only")
    table = reader.name()
    if table in known.new:
        return
    if reader.take("using"):
        reader.next()
    reader.take("(")
    columns = [" ".join(part.rest) for part in reader.parts()]
    extra = ", unique=True" if unique else ""
    safe = f'{_IMPORT}\n\noperations.create_index(op, "{name}", "{table}", {_list(columns)}{extra})'
    if not concurrently:
        known.locked = True
        yield _Problem(
            "create-index", f"{table} takes no writes until {name} is built", safe, _SHARE
        )
    elif step.in_transaction:
        yield _Problem(
            "concurrently-in-transaction", "PostgreSQL refuses it in a transaction", safe, ""
        )
    elif exists or name not in known.dropped_indexes:
        yield _Problem(
            "index-leftover",
            f"if it is interrupted, {name} stays behind, invalid, and a repeat "
            + ("takes it for done" if exists else "fails"),
            safe,
            "",
        )


def _drop_index(reader: Reader, known: _Known, step: Step) -> Iterator[_Problem]:
    concurrently = reader.take("concurrently")
    reader.take("if exists")
    for name in reader.names():
        safe = f'{_IMPORT}\n\noperations.drop_index(op, "{name}")'
        known.dropped_indexes.add(name)
        if not concurrently:
            known.locked = True
            yield _Problem(
                "drop-index", f"dropping {name} waits for every query of its table", safe
            )
        elif step.in_transaction:
            yield _Problem(
                "concurrently-in-transaction", "PostgreSQL refuses it in a transaction", safe, ""
            )


def _drop_table(reader: Reader, known: _Known, _step: Step) -> Iterator[_Problem]:
    reader.take("only")
    reader.take("if exists")
    for table in reader.names():
        if table not in known.new:
            known.locked = True
            yield _Problem(
                "drop-table",
                f"code that still runs may read {table}, and what is in it is gone",
                "# first a release that no longer uses the table; then, in the next one:\n"
                f"# lint-ok drop-table: nothing uses it since <release>\n"
                f'op.drop_table("{table}")',
            )


def _rewrite(reader: Reader, known: _Known, step: Step) -> Iterator[_Problem]:
    if step.statement.tokens[0] == "vacuum" and "full" not in step.statement.tokens:
        return
    if "concurrently" in step.statement.tokens:
        if step.in_transaction:
            yield _Problem(
                "concurrently-in-transaction",
                "PostgreSQL refuses it in a transaction",
                "with op.get_context().autocommit_block():\n"
                f'    op.execute("{step.statement.text}")',
                "",
            )
        return
    del reader
    known.locked = True
    words = step.statement.text.split()
    verb = words[0].upper()
    yield _Problem(
        "table-rewrite",
        "everything is written anew while nobody may use it",
        f'with op.get_context().autocommit_block():\n    op.execute("{verb} ... CONCURRENTLY ...")'
        if verb in {"REINDEX", "REFRESH"}
        else "# not in a revision: outside of working hours, by hand",
    )


def _lock(reader: Reader, known: _Known, _step: Step) -> Iterator[_Problem]:
    reader.take("table")
    reader.take("only")
    known.locked = known.locked or any(table not in known.new for table in reader.names())
    return iter(())


def _change_rows(reader: Reader, known: _Known, step: Step) -> Iterator[_Problem]:
    reader.take("only")
    table = reader.name()
    constant = step.statement.tokens[0] == "insert" and "select" not in step.statement.tokens
    if step.in_transaction and table not in known.new and not constant:
        known.changed.append((step, table))
    return iter(())


def _alter_table(reader: Reader, known: _Known, step: Step) -> Iterator[_Problem]:
    reader.take("if exists")
    reader.take("only")
    table = reader.name()
    for part in reader.parts():
        problems = list(_alter(table, part, known, step))
        if table not in known.new:
            yield from problems
            if part.tokens[:1] != ("validate",):
                known.locked = True


def _alter(  # noqa: C901, PLR0912 - a branch for each action
    table: str, action: Reader, known: _Known, step: Step
) -> Iterator[_Problem]:
    if action.take("add"):
        if action.rest[0] in _CONSTRAINTS:
            yield from _add_constraint(table, action, known)
        else:
            action.take("column")
            action.take("if not exists")
            yield from _add_column(table, action, known)
    elif action.take("alter"):
        action.take("column")
        yield from _alter_column(table, action.name(), action, known)
    elif action.take("validate constraint"):
        name = action.name()
        column, _ = known.not_null.get((table, name), ("", False))
        if column:
            known.not_null[table, name] = (column, True)
        if (table, name) in known.added and step.in_transaction:
            yield _Problem(
                "lock-while-validating",
                f"the lock under which {name} was added is held while {table} is read",
                "with op.get_context().autocommit_block():\n"
                f'    op.execute("ALTER TABLE {table} VALIDATE CONSTRAINT {name}")',
            )
    elif action.take("drop constraint"):
        action.take("if exists")
        known.not_null.pop((table, action.name()), None)
    elif action.take("drop"):
        action.take("column")
        action.take("if exists")
        column = action.name()
        yield _Problem(
            "drop-column",
            f"code that still runs names {table}.{column}, and what is in it is gone",
            "# first a release whose models no longer have the column; then, in the next one:\n"
            "# lint-ok drop-column: nothing uses it since <release>\n"
            f'op.drop_column("{table}", "{column}")',
        )
    elif action.take("rename constraint"):
        return
    elif action.take("rename"):
        yield from _rename(table, action, known)
    elif action.take_any("set logged", "set unlogged", "set tablespace", "set access method"):
        yield _Problem(
            "table-rewrite",
            f"{table} is written anew while nobody may read it",
            "# a new table beside it, filled in batches, and the code moved over to it",
        )
    elif action.take("set schema"):
        yield _Problem(
            "rename",
            f"code that still runs looks for {table} where it was",
            "# a view of the old name until no release uses it",
        )


def _rename(table: str, action: Reader, known: _Known) -> Iterator[_Problem]:
    if action.take("to"):
        new = action.name()
        if table in known.new:
            known.new.add(new)
        yield _Problem(
            "rename",
            f"code that still runs asks for {table}",
            f'op.execute("ALTER TABLE {table} RENAME TO {new}")\n'
            f'op.execute("CREATE VIEW {table} AS TABLE {new}")  # dropped in a later revision\n'
            "# lint-ok rename: a view of the old name stands in",
        )
        return
    action.take("column")
    old = action.name()
    action.take("to")
    new = action.name()
    known.types[table, new] = known.types.get((table, old), "")
    yield _Problem(
        "rename",
        f"code that still runs asks for {table}.{old}",
        f'# 1. a new column: op.add_column("{table}", sa.Column("{new}", ...))\n'
        "# 2. a release that writes both and reads the new one, after a backfill:\n"
        f'operations.backfill(op, "{table}", "SET {new} = {old}", where="{new} IS NULL")\n'
        f'# 3. a release that knows the new one alone, then: op.drop_column("{table}", "{old}")',
    )


def _add_column(table: str, action: Reader, known: _Known) -> Iterator[_Problem]:
    column = action.name()
    kind = _type(action)
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
        yield _Problem(
            "table-rewrite",
            f"every row of {table} is written anew to be given {what}",
            f'{add}\nop.alter_column("{table}", "{column}", server_default=...)  # of new rows\n'
            f"# in the next revision, for the old ones\n{_IMPORT}\n\n{fill}"
            if not stored
            else "# PostgreSQL 18 computes it on reading: GENERATED ALWAYS AS (...) VIRTUAL;\n"
            "# before that, a plain column, a trigger, and a backfill in batches",
        )
    elif "not null" in words and (not default or default == ("null",)):
        yield _Problem(
            "add-column-not-null",
            f"it fails when {table} has rows, and code that still runs does not fill {column}",
            f'op.add_column("{table}", sa.Column("{column}", ..., nullable=False, '
            f'server_default="..."))  # a constant costs no rewrite\n# or\n{add}\n'
            f"# and in the next revision\n{_IMPORT}\n\n{fill}\n"
            f'operations.set_not_null(op, "{table}", "{column}")',
        )
    if "references" in rest:
        yield from _constraint_problem(
            table, f"fk_{table}_{column}", "foreign key", known, f"({column})", split=add
        )
    if "check" in rest:
        yield from _constraint_problem(table, f"ck_{table}_{column}", "check", known, "", split=add)
    if "unique" in rest or "primary" in rest:
        yield _unique_problem(table, f"uq_{table}_{column}", [column])


def _add_constraint(table: str, action: Reader, known: _Known) -> Iterator[_Problem]:
    name = action.name() if action.take("constraint") else ""
    kind = action.take_any("check", "foreign key", "unique", "primary key", "exclude", "not null")
    rest = action.rest
    words = " ".join(rest)
    known.added.add((table, name))
    valid = "not valid" not in words
    if kind == "not null":
        known.not_null[table, name] = (rest[0], valid)
        if valid:
            yield _not_null_problem(table, rest[0])
    elif kind == "check":
        match = re.fullmatch(r"\(+ ?(\S+) is not null ?\)+( not valid)?", words)
        if match:
            known.not_null[table, name] = (match[1], valid)
        if valid:
            condition = words.removeprefix("( ").removesuffix(" )")
            yield from _constraint_problem(table, name, kind, known, condition)
    elif kind == "foreign key" and valid:
        yield from _constraint_problem(table, name, kind, known, words)
    elif kind in {"unique", "primary key"} and not words.startswith("using index"):
        action.take("nulls not distinct")
        action.take("nulls distinct")
        action.take("(")
        columns = [" ".join(part.rest) for part in action.parts()]
        yield _unique_problem(table, name, columns, primary=kind == "primary key")
    elif kind == "exclude":
        yield _Problem(
            "unique",
            f"{table} is locked until the index of {name} is built, and no form builds it before",
            "# a new table with the constraint, filled in batches; or, for a small table,\n"
            "# lint-ok unique: <how few rows it has>",
        )


def _constraint_problem(
    table: str, name: str, kind: str, known: _Known, words: str, *, split: str = ""
) -> Iterator[_Problem]:
    del known
    before = f"{split}\n" if split else ""
    if kind == "foreign key":
        yield _Problem(
            "constraint",
            f"all rows of {table} are looked up while it and the other table take no writes",
            f"{before}# in a revision of its own\n{_IMPORT}\n\n"
            f'operations.add_foreign_key(op, "{name}", "{table}", {_foreign(words)})',
            _SHARE_ROW,
        )
    else:
        yield _Problem(
            "constraint",
            f"all rows of {table} are read while nobody may use it",
            f"{before}# in a revision of its own\n{_IMPORT}\n\n"
            f'operations.add_check(op, "{name}", "{table}", "{words or "..."}")',
        )


def _foreign(words: str) -> str:
    match = re.match(r"\( (.+?) \) references (.+?) \( (.+?) \)", words)
    if match is None:
        return '["..."], "...", ["..."]'
    here, other, there = match[1].split(" , "), match[2].split(" . ")[-1], match[3].split(" , ")
    return f'{_list(here)}, "{other}", {_list(there)}'


def _unique_problem(
    table: str, name: str, columns: list[str], *, primary: bool = False
) -> _Problem:
    extra = ", primary=True" if primary else ""
    return _Problem(
        "unique",
        f"{table} is locked until the index of {name or 'the constraint'} is built",
        f"# in a revision of its own\n{_IMPORT}\n\n"
        f'operations.add_unique(op, "{name}", "{table}", {_list(columns)}{extra})',
    )


def _not_null_problem(table: str, column: str) -> _Problem:
    return _Problem(
        "set-not-null",
        f"all rows of {table} are read while nobody may use it; not so where a validated "
        f"CHECK ({column} IS NOT NULL) stands",
        f"# in a revision of its own\n{_IMPORT}\n\n"
        f'operations.set_not_null(op, "{table}", "{column}")',
    )


def _alter_column(table: str, column: str, action: Reader, known: _Known) -> Iterator[_Problem]:
    if action.take("set not null"):
        holds = any(
            of == table and held == (column, True) for (of, _), held in known.not_null.items()
        )
        if not holds:
            yield _not_null_problem(table, column)
    elif action.take("add generated"):
        return
    elif action.take("set data type") or action.take("type"):
        new = _type(action)
        old = known.types.get((table, column), "")
        known.types[table, column] = new
        if not _keeps_rows(old, new) or "using" in action.rest:
            yield _Problem(
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
        yield _Problem(
            "table-rewrite",
            f"{table} is written anew for the expression of {column}",
            "# a new column beside it, filled in batches",
        )


_CONSTRAINTS = frozenset(
    {"constraint", "check", "foreign", "unique", "primary", "exclude", "like", "not"}
)
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


def _type(reader: Reader) -> str:
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


def _list(names: list[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


_STATEMENTS: dict[str, Callable[[Reader, _Known, Step], Iterator[_Problem]]] = {
    "create table": _create_table,
    "create unlogged table": _create_table,
    "create temporary table": _create_table,
    "create temp table": _create_table,
    "create materialized view": _create_table,
    "create unique index": _create_index,
    "create index": _create_index,
    "drop index": _drop_index,
    "drop table": _drop_table,
    "truncate table": _drop_table,
    "truncate": _drop_table,
    "alter table": _alter_table,
    "update": _change_rows,
    "delete from": _change_rows,
    "insert into": _change_rows,
    "vacuum": _rewrite,
    "cluster": _rewrite,
    "reindex": _rewrite,
    "refresh materialized view": _rewrite,
    "lock": _lock,
}


_ALLOW = re.compile(r"#\s*lint-ok\b\s*(?P<rules>[\w, -]*?)\s*(?::\s*(?P<reason>.*))?$")


def _allowed(findings: list[Finding], recording: Recording) -> Iterator[Finding]:
    """Leave out what a comment allows; add the comments that do so for nothing."""
    source = Path(recording.path).read_text(encoding="utf-8")
    spans = _spans(source)
    comments: dict[int, tuple[set[str], str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and (match := _ALLOW.match(token.string)):
            rules = {rule for rule in re.split(r"[\s,]+", match["rules"]) if rule}
            comments[token.start[0]] = (rules, (match["reason"] or "").strip())
    used: dict[int, set[str]] = defaultdict(set)
    for finding in findings:
        lines = _lines_of(finding.line, spans, source)
        at = [line for line in lines if line in comments and finding.rule in comments[line][0]]
        if not at:
            yield finding
        for line in at:
            used[line].add(finding.rule)
    for line, (rules, reason) in comments.items():
        wrong = (
            f"it gives no reason for {', '.join(sorted(rules))}"
            if not reason
            else "it names no rule"
            if not rules
            else f"there is no {', '.join(sorted(rules - used[line]))} to allow here"
            if rules - used[line]
            else ""
        )
        if wrong:
            yield Finding(
                "suppression",
                recording.path,
                line,
                recording.revision,
                wrong,
                "# lint-ok drop-column: nothing reads it since 1.4",
            )


def _spans(source: str) -> list[tuple[int, int]]:
    """First and last line of every statement of a function, the longer ones first."""
    tree = ast.parse(source)
    found = [
        (node.lineno, node.lineno if isinstance(node, _BLOCKS) else node.end_lineno or node.lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt)
    ]
    return sorted(found, key=lambda span: span[0] - span[1])


_BLOCKS = (ast.FunctionDef, ast.With, ast.For, ast.If, ast.While, ast.Try, ast.ClassDef)


def _lines_of(line: int, spans: list[tuple[int, int]], source: str) -> set[int]:
    """The lines of the innermost statement around ``line``, and of the comments right above it."""
    first, last = line, line
    for start, end in spans:
        if start <= line <= end:
            first, last = start, end
    lines = source.splitlines()
    above = first - 1
    while above >= 1 and lines[above - 1].lstrip().startswith("#"):
        above -= 1
    return set(range(above + 1, last + 1))


def _line_of_downgrade(path: str) -> int:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    return next(
        (
            node.lineno
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and node.name == "downgrade"
        ),
        1,
    )
