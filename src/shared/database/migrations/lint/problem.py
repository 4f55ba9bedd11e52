"""What the rules of the linter say and know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.database.migrations.recording import Step


EXCLUSIVE = "ACCESS EXCLUSIVE: nobody reads or writes"
SHARE = "SHARE: nobody writes"
SHARE_ROW = "SHARE ROW EXCLUSIVE: nobody writes"
IMPORT = "from shared.database import operations"


@dataclass(frozen=True, slots=True)
class Problem:
    """One dangerous step, before it is known where it stands."""

    rule: str
    why: str
    safe: str
    lock: str = EXCLUSIVE


@dataclass(slots=True)
class Known:
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


def list_of(names: list[str]) -> str:
    """Write names as a revision does."""
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
