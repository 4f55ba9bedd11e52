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
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from shared.database.migrations.lint.finding import Finding
from shared.database.migrations.lint.problem import EXCLUSIVE, IMPORT, Known
from shared.database.migrations.lint.suppressions import not_allowed
from shared.database.migrations.lint.tables import problems
from shared.database.migrations.recording import record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from alembic.script import Script

    from shared.database.migrations.recording import Recording


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
    known = Known(lock_timeout=lock_timeout)
    findings: list[Finding] = []
    for script in scripts:
        recording = record(script)
        found = list(_examine(recording, known))
        if only is None or recording.revision in only:
            findings += not_allowed(found, recording)
    return findings


def _examine(recording: Recording, known: Known) -> Iterator[Finding]:
    known.new, known.dropped_indexes = set(), set()
    begin_transaction(known)
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
            begin_transaction(known)
        reader = step.statement.reader
        if reader.take_any("set local", "set session", "set") and reader.take("lock_timeout"):
            timeout = reader.rest[-1].strip("'") not in {"0", "default"}
            continue
        for problem in problems(step, known):
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
                EXCLUSIVE,
            )
        yield from (
            finding(
                "backfill",
                changing.line,
                f"the rows of {table} are changed in the transaction that locks a table: the lock "
                "is held until the last row is written",
                f"# in a revision of its own\n{IMPORT}\n\n"
                f'operations.backfill(op, "{table}", "SET ...", where="...")',
                EXCLUSIVE,
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


def begin_transaction(known: Known) -> None:
    """Forget what the transaction before it did: its locks are released."""
    known.locked, known.changed, known.added = False, [], set()


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
