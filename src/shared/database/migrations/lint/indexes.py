"""Rules about indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.database.migrations.lint.problem import IMPORT, SHARE, Known, Problem, list_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shared.database.migrations.recording import Step
    from shared.database.migrations.sql_statement import Reader


def create_index(reader: Reader, known: Known, step: Step) -> Iterator[Problem]:
    """Examine CREATE INDEX."""
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
    safe = (
        f'{IMPORT}\n\noperations.create_index(op, "{name}", "{table}", {list_of(columns)}{extra})'
    )
    if not concurrently:
        known.locked = True
        yield Problem("create-index", f"{table} takes no writes until {name} is built", safe, SHARE)
    elif step.in_transaction:
        yield Problem(
            "concurrently-in-transaction", "PostgreSQL refuses it in a transaction", safe, ""
        )
    elif exists or name not in known.dropped_indexes:
        yield Problem(
            "index-leftover",
            f"if it is interrupted, {name} stays behind, invalid, and a repeat "
            + ("takes it for done" if exists else "fails"),
            safe,
            "",
        )


def drop_index(reader: Reader, known: Known, step: Step) -> Iterator[Problem]:
    """Examine DROP INDEX."""
    concurrently = reader.take("concurrently")
    reader.take("if exists")
    for name in reader.names():
        safe = f'{IMPORT}\n\noperations.drop_index(op, "{name}")'
        known.dropped_indexes.add(name)
        if not concurrently:
            known.locked = True
            yield Problem("drop-index", f"dropping {name} waits for every query of its table", safe)
        elif step.in_transaction:
            yield Problem(
                "concurrently-in-transaction", "PostgreSQL refuses it in a transaction", safe, ""
            )
