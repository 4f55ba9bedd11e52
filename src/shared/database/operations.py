"""What revisions do, in the form that lets a service go on working meanwhile.

    from alembic import op
    from shared.database import operations

    def upgrade() -> None:
        operations.create_index(op, "ix_orders_email", "orders", ["email"])

They are plain functions that take ``alembic.op`` first, so that types and editors know them. Those
that wait for a large table (`create_index`, `add_check`, `backfill`...) end the transaction
of the revision and work in several of their own, each with a short lock. They can be repeated: a
revision that was interrupted between them is run again from its start. So give them revisions of
their own; what stands before them in the same one has been committed, and would be repeated too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.database.base import create_updated_at_trigger
from shared.database.engine.statements import quoted_text
from shared.database.migrations.sql_statement import split_statements
from shared.database.models.history import create_history, drop_history
from shared.database.tenancy.row_security import (
    expose_merchants,
    isolate_merchants,
    without_isolation,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from alembic.operations import Operations

__all__ = [
    "add_check",
    "add_foreign_key",
    "add_unique",
    "backfill",
    "create_history",
    "create_index",
    "create_updated_at_trigger",
    "drop_history",
    "drop_index",
    "drop_updated_at_trigger",
    "expose_merchants",
    "isolate_merchants",
    "run_sql",
    "set_not_null",
    "without_isolation",
]


def create_index(
    op: Operations | Any,
    name: str,
    table: str,
    columns: Sequence[str],
    *,
    unique: bool = False,
    where: str | None = None,
    using: str = "btree",
) -> None:
    """Build an index while the table is written to.

    What an interrupted attempt left behind, which PostgreSQL keeps as invalid, is dropped first.

    Args:
        op: ``alembic.op``.
        name: of the index.
        table: its name, in the service's schema.
        columns: names, or expressions in brackets: ``"(lower(email))"``.
        unique: no two rows with the same values; fails, and leaves nothing that a repeat would
            stumble on, when there are.
        where: for an index of some rows only.
        using: its method.
    """
    quote = _quote(op)
    keys = ", ".join(part if "(" in part or " " in part else quote(part) for part in columns)
    kind = "UNIQUE INDEX" if unique else "INDEX"
    condition = f" WHERE {where}" if where else ""
    _each_alone(
        op,
        f"DROP INDEX CONCURRENTLY IF EXISTS {quote(name)}",
        f"CREATE {kind} CONCURRENTLY {quote(name)} ON {quote(table)} USING {using} ({keys})"
        f"{condition}",
    )


def drop_index(op: Operations | Any, name: str) -> None:
    """Drop an index without making anybody wait; none of that name: nothing."""
    _each_alone(op, f"DROP INDEX CONCURRENTLY IF EXISTS {_quote(op)(name)}")


def add_check(op: Operations | Any, name: str, table: str, condition: str) -> None:
    """Add a CHECK: new rows obey at once, then the old ones are looked at without a lock on them.

    Raises:
        ValidationError: a row does not obey. The constraint stands for new rows; put the old ones
            right and run the revision again.
    """
    _constrain(op, table, name, f"CHECK ({condition})")


def add_foreign_key(
    op: Operations | Any,
    name: str,
    table: str,
    columns: Sequence[str],
    other: str,
    other_columns: Sequence[str],
    *,
    on_delete: str | None = None,
) -> None:
    """Add a FOREIGN KEY, as `add_check` adds a CHECK.

    Args:
        op: ``alembic.op``.
        name: of the constraint.
        table: that refers.
        columns: of ``table``.
        other: table that is referred to.
        other_columns: its key.
        on_delete: ``"CASCADE"``, ``"SET NULL"``...
    """
    quote = _quote(op)
    here, there = (", ".join(map(quote, names)) for names in (columns, other_columns))
    then = f" ON DELETE {on_delete}" if on_delete else ""
    rule = f"FOREIGN KEY ({here}) REFERENCES {quote(other)} ({there}){then}"
    _constrain(op, table, name, rule)


def add_unique(
    op: Operations | Any, name: str, table: str, columns: Sequence[str], *, primary: bool = False
) -> None:
    """Add UNIQUE (or PRIMARY KEY) by building its index first, while the table is written to.

    The columns of a primary key should be NOT NULL before (`set_not_null`).

    Raises:
        ConflictError: there are rows with the same values.
    """
    quote = _quote(op)
    kind = "PRIMARY KEY" if primary else "UNIQUE"
    _each_alone(op, f"ALTER TABLE {quote(table)} DROP CONSTRAINT IF EXISTS {quote(name)}")
    create_index(op, name, table, columns, unique=True)
    _each_alone(
        op,
        f"ALTER TABLE {quote(table)} ADD CONSTRAINT {quote(name)} {kind} USING INDEX {quote(name)}",
    )


def set_not_null(op: Operations | Any, table: str, column: str) -> None:
    """Forbid NULL in a column without reading the table under a lock.

    A validated CHECK spares SET NOT NULL its look at every row (PostgreSQL 12 and newer), and goes
    again when it has served.

    Raises:
        ValidationError: a row has NULL there; fill it (`backfill`) and run the revision again.
    """
    quote = _quote(op)
    name = f"{table}_{column}_not_null_check"[:63]
    _constrain(op, table, name, f"CHECK ({quote(column)} IS NOT NULL)")
    _each_alone(
        op,
        f"ALTER TABLE {quote(table)} ALTER COLUMN {quote(column)} SET NOT NULL",
        f"ALTER TABLE {quote(table)} DROP CONSTRAINT {quote(name)}",
    )


def backfill(
    op: Operations | Any, table: str, change: str, *, where: str, pages: int = 256
) -> None:
    """Change many rows, some in each transaction, so that nobody waits long for one of them.

    It goes through the table page by page, and again until it finds nothing to do.

    Args:
        op: ``alembic.op``.
        table: its name, in the service's schema.
        change: what UPDATE does: ``"SET total = net + tax"``.
        where: the rows still to do: ``"total IS NULL"``. The change must make it false.
        pages: of 8 KiB, for one transaction.
    """
    quote = _quote(op)
    update, relation = f"UPDATE {quote(table)} {change}", quoted_text(quote(table))
    _each_alone(
        op,
        f"""\
DO $backfill$
#variable_conflict use_column
DECLARE
  glam_page bigint; glam_pages bigint; glam_changed bigint; glam_total bigint;
BEGIN
  LOOP
    glam_total := 0;
    glam_page := 0;
    glam_pages := pg_relation_size({relation}) / current_setting('block_size')::bigint;
    WHILE glam_page <= glam_pages LOOP
      {update}
      WHERE ctid >= ('(' || glam_page || ',0)')::tid
      AND ctid < ('(' || glam_page + {pages} || ',0)')::tid
      AND ({where});
      GET DIAGNOSTICS glam_changed = ROW_COUNT;
      glam_total := glam_total + glam_changed;
      glam_page := glam_page + {pages};
      COMMIT;
    END LOOP;
    EXIT WHEN glam_total = 0;
  END LOOP;
END $backfill$""",
    )


def run_sql(op: Operations | Any, sql: str) -> None:
    """Run SQL as it stands: several statements, with colons and percent signs that mean nothing."""
    for statement in split_statements(sql):
        op.execute(_literal(statement.text))


def drop_updated_at_trigger(op: Operations | Any, table: str) -> None:
    """Undo `create_updated_at_trigger`. The function stays: other tables use it."""
    op.execute(f"DROP TRIGGER IF EXISTS touch_updated_at ON {_quote(op)(table)}")


def _constrain(op: Operations | Any, table: str, name: str, rule: str) -> None:
    quote = _quote(op)
    _each_alone(
        op,
        # One statement, so that a repeat leaves no moment without the rule.
        f"ALTER TABLE {quote(table)} DROP CONSTRAINT IF EXISTS {quote(name)}, "
        f"ADD CONSTRAINT {quote(name)} {rule} NOT VALID",
        f"ALTER TABLE {quote(table)} VALIDATE CONSTRAINT {quote(name)}",
    )


def _each_alone(op: Operations | Any, *statements: str) -> None:
    with op.get_context().autocommit_block():
        _run(op, statements)


def _run(op: Operations | Any, statements: Iterable[str]) -> None:
    for statement in statements:
        op.execute(_literal(statement))


def _literal(sql: str) -> str:
    return sql.replace("\\:", ":").replace(":", "\\:")


def _quote(op: Operations | Any) -> Any:
    return op.get_context().dialect.identifier_preparer.quote
