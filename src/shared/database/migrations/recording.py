"""The SQL of revisions, recorded without a database, with the line each statement comes from."""

from __future__ import annotations

import io
import sys
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy.dialects.postgresql.asyncpg import dialect as postgresql

from shared.database.migrations.sql_statement import Statement, split_statements

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.script import Script


@dataclass(frozen=True, slots=True)
class Step:
    """One statement of a revision."""

    statement: Statement
    line: int
    """Of the revision's file."""
    in_transaction: bool


@dataclass(slots=True)
class Recording:
    """What a revision does on its way forward and back."""

    revision: str
    path: str
    upgrade: list[Step] = field(default_factory=list)
    downgrade: list[Step] = field(default_factory=list)
    failure: tuple[int, str] | None = None
    """Line and words of what went wrong on the way forward: it asked for a database."""
    has_downgrade: bool = False
    """Whether the way back does something, or says by an error of its own that there is none."""


def record(script: Script) -> Recording:
    """Run both ways of a revision without a database.

    Not to be called by two threads at a time: ``alembic.op`` is one for the process.
    """
    recording = Recording(script.revision, str(script.path))
    try:
        recording.upgrade = _run(script.module.upgrade, recording.path)
    except Exception as error:  # noqa: BLE001 - whatever a revision does wrong is its finding
        recording.failure = (_line(error, recording.path), f"{type(error).__name__}: {error}")
    back: Callable[[], None] | None = getattr(script.module, "downgrade", None)
    if back is not None:
        try:
            recording.downgrade = _run(back, recording.path)
            recording.has_downgrade = bool(recording.downgrade)
        except Exception:  # noqa: BLE001 - it needs a database, or refuses in words
            recording.has_downgrade = True
    return recording


def _run(way: Callable[[], None], path: str) -> list[Step]:
    written = _Written(path)
    context = MigrationContext.configure(
        dialect=postgresql(),  # type: ignore[no-untyped-call]
        opts={"as_sql": True, "literal_binds": True, "output_buffer": written},
    )
    with Operations.context(context):
        way()
    return written.steps


class _Written(io.StringIO):
    """Takes what Alembic would print, one statement at a time, while the revision runs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.steps: list[Step] = []
        self.in_transaction = True

    def write(self, text: str) -> int:
        for statement in split_statements(text):
            if statement.tokens == ("begin",):
                self.in_transaction = True
            elif statement.tokens == ("commit",):
                self.in_transaction = False
            else:
                self.steps.append(Step(statement, self._line(), self.in_transaction))
        return len(text)

    def _line(self) -> int:
        frame = sys._getframe()  # noqa: SLF001 - the one way to know who is calling
        while frame.f_back is not None and frame.f_code.co_filename != self.path:
            frame = frame.f_back
        return frame.f_lineno if frame.f_code.co_filename == self.path else 1


def _line(error: Exception, path: str) -> int:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path and frame.lineno is not None
    ]
    return lines[-1] if lines else 1
