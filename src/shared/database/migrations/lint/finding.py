"""What the linter finds."""

from __future__ import annotations

from dataclasses import dataclass

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
"""Every rule, by the name that a finding has and that ``lint-ok`` takes."""


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
