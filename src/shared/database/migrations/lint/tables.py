"""Rules about tables and their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.database.migrations.lint.columns import add_column, alter_column, type_of
from shared.database.migrations.lint.constraints import CONSTRAINTS, add_constraint
from shared.database.migrations.lint.indexes import create_index, drop_index
from shared.database.migrations.lint.problem import Known, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shared.database.migrations.recording import Step
    from shared.database.migrations.sql_statement import Reader


def problems(step: Step, known: Known) -> Iterator[Problem]:
    """Return what is dangerous about one statement; note what it made."""
    reader = step.statement.reader
    for words, examine in _STATEMENTS.items():
        if reader.take(words):
            yield from examine(reader, known, step)
            return


def _create_table(reader: Reader, known: Known, _step: Step) -> Iterator[Problem]:
    reader.take("if not exists")
    table = reader.name()
    known.new.add(table)
    if reader.take("("):
        for part in reader.parts():
            if part.rest[0] not in CONSTRAINTS:
                column = part.name()
                known.types[table, column] = type_of(part)
    return iter(())


def _drop_table(reader: Reader, known: Known, _step: Step) -> Iterator[Problem]:
    reader.take("only")
    reader.take("if exists")
    for table in reader.names():
        if table not in known.new:
            known.locked = True
            yield Problem(
                "drop-table",
                f"code that still runs may read {table}, and what is in it is gone",
                "# first a release that no longer uses the table; then, in the next one:\n"
                f"# lint-ok drop-table: nothing uses it since <release>\n"
                f'op.drop_table("{table}")',
            )


def _rewrite(reader: Reader, known: Known, step: Step) -> Iterator[Problem]:
    if step.statement.tokens[0] == "vacuum" and "full" not in step.statement.tokens:
        return
    if "concurrently" in step.statement.tokens:
        if step.in_transaction:
            yield Problem(
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
    yield Problem(
        "table-rewrite",
        "everything is written anew while nobody may use it",
        f'with op.get_context().autocommit_block():\n    op.execute("{verb} ... CONCURRENTLY ...")'
        if verb in {"REINDEX", "REFRESH"}
        else "# not in a revision: outside of working hours, by hand",
    )


def _lock(reader: Reader, known: Known, _step: Step) -> Iterator[Problem]:
    reader.take("table")
    reader.take("only")
    known.locked = known.locked or any(table not in known.new for table in reader.names())
    return iter(())


def _change_rows(reader: Reader, known: Known, step: Step) -> Iterator[Problem]:
    reader.take("only")
    table = reader.name()
    constant = step.statement.tokens[0] == "insert" and "select" not in step.statement.tokens
    if step.in_transaction and table not in known.new and not constant:
        known.changed.append((step, table))
    return iter(())


def _alter_table(reader: Reader, known: Known, step: Step) -> Iterator[Problem]:
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
    table: str, action: Reader, known: Known, step: Step
) -> Iterator[Problem]:
    if action.take("add"):
        if action.rest[0] in CONSTRAINTS:
            yield from add_constraint(table, action, known)
        else:
            action.take("column")
            action.take("if not exists")
            yield from add_column(table, action, known)
    elif action.take("alter"):
        action.take("column")
        yield from alter_column(table, action.name(), action, known)
    elif action.take("validate constraint"):
        name = action.name()
        column, _ = known.not_null.get((table, name), ("", False))
        if column:
            known.not_null[table, name] = (column, True)
        if (table, name) in known.added and step.in_transaction:
            yield Problem(
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
        yield Problem(
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
        yield Problem(
            "table-rewrite",
            f"{table} is written anew while nobody may read it",
            "# a new table beside it, filled in batches, and the code moved over to it",
        )
    elif action.take("set schema"):
        yield Problem(
            "rename",
            f"code that still runs looks for {table} where it was",
            "# a view of the old name until no release uses it",
        )


def _rename(table: str, action: Reader, known: Known) -> Iterator[Problem]:
    if action.take("to"):
        new = action.name()
        if table in known.new:
            known.new.add(new)
        yield Problem(
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
    yield Problem(
        "rename",
        f"code that still runs asks for {table}.{old}",
        f'# 1. a new column: op.add_column("{table}", sa.Column("{new}", ...))\n'
        "# 2. a release that writes both and reads the new one, after a backfill:\n"
        f'operations.backfill(op, "{table}", "SET {new} = {old}", where="{new} IS NULL")\n'
        f'# 3. a release that knows the new one alone, then: op.drop_column("{table}", "{old}")',
    )


_STATEMENTS: dict[str, Callable[[Reader, Known, Step], Iterator[Problem]]] = {
    "create table": _create_table,
    "create unlogged table": _create_table,
    "create temporary table": _create_table,
    "create temp table": _create_table,
    "create materialized view": _create_table,
    "create unique index": create_index,
    "create index": create_index,
    "drop index": drop_index,
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
