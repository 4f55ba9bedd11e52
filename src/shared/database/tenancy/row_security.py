"""Row-level security: each tenant's own view of a table, and whether it binds the role we are."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from shared.database.engine.statements import quoted_text

if TYPE_CHECKING:
    from collections.abc import Iterator


ROW_SECURITY = text("""\
SELECT rolname, rolsuper OR rolbypassrls, ARRAY(
  SELECT relname::text FROM pg_class
  WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relrowsecurity
  ORDER BY relname)
FROM pg_roles WHERE rolname = current_user""")


@dataclass(frozen=True, slots=True)
class RowSecurity:
    """The role we are, whether it passes by all policies, and the tables of the schema with any."""

    role: str
    bypassed: bool
    tables: list[str]

    @property
    def broken(self) -> bool:
        """Whether tenants are kept apart in name only."""
        return self.bypassed and bool(self.tables)


NO_TENANT = "GL001"
"""The SQLSTATE that `glam_merchant()` raises; classes from I to Z are free for such use."""

# In a subquery the function is called once for each query and not for each row. The first half,
# which knows no column, the planner makes a condition on the whole query, so that it fails where
# there is no row to judge too.
_FUNCTION = f"""\
CREATE OR REPLACE FUNCTION glam_merchant() RETURNS uuid
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  merchant text := pg_catalog.current_setting('glam.merchant_id', true);
BEGIN
  IF merchant IS NULL OR merchant OPERATOR(pg_catalog.=) '' THEN
    RAISE EXCEPTION 'this transaction works for no merchant'
      USING ERRCODE = '{NO_TENANT}', HINT = 'bind one: tenant_scope(merchant_id)';
  ELSIF merchant OPERATOR(pg_catalog.!~) '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN
    RAISE EXCEPTION 'the tenant % is no merchant id, which is a UUID', merchant
      USING ERRCODE = '{NO_TENANT}';
  END IF;
  RETURN merchant;
END $$"""
_ME = "CAST((SELECT glam_merchant()) AS text)"
_MINE = "glam_merchant() IS NOT NULL AND {column} = (SELECT glam_merchant())"


def isolate_merchants(op: Any, table: str, *, column: str = "merchant_id") -> None:
    """Let a migration give each tenant its own view of ``table``.

    From then on a transaction sees and writes the rows of the tenant it works for, whatever its
    statements forget to say; one that works for none fails with `TenantRequiredError`. Neither
    does the table's owner escape. Superusers and roles with BYPASSRLS do: services must not log in
    as one. A second call, in a later revision, renews the policy. The table's history, if it has
    one, is isolated with it.

    Args:
        op: ``alembic.op``.
        table: its name, in the service's schema.
        column: the tenant's id, a UUID.
    """
    quote = op.get_bind().dialect.identifier_preparer.quote
    op.execute(_FUNCTION)
    for statement in _isolation(quote(table), _MINE.format(column=quote(column))):
        op.execute(statement)
    # What it was before it came to this tenant, or after it left, is another's as well.
    was = " AND ".join(
        f"coalesce({row} ->> {quoted_text(column)}, {_ME}) = {_ME}" for row in ("before", "after")
    )
    name = quote(f"{table}_history")
    _of_history(op, name, _isolation(name, f"glam_merchant() IS NOT NULL AND {was}"))


def expose_merchants(op: Any, table: str) -> None:
    """Undo `isolate_merchants`, for the way back of a revision."""
    quote = op.get_bind().dialect.identifier_preparer.quote
    name, history = quote(table), quote(f"{table}_history")
    for statement in _exposure(name):
        op.execute(statement)
    _of_history(op, history, _exposure(history))


@contextmanager
def without_isolation(op: Any, table: str) -> Iterator[None]:
    """Let a migration, which works for no tenant, change the rows of all: a backfill.

    The table's owner is let through until the block ends. The table is locked until the
    revision commits, so nobody else gets through meanwhile.
    """
    quote = op.get_bind().dialect.identifier_preparer.quote
    name, history = quote(table), quote(f"{table}_history")
    op.execute(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")
    _of_history(op, history, [f"ALTER TABLE {history} NO FORCE ROW LEVEL SECURITY"])
    yield
    op.execute(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")
    _of_history(
        op, history, [f"ALTER TABLE {history} FORCE ROW LEVEL SECURITY"], where="relrowsecurity"
    )


def _isolation(name: str, mine: str) -> list[str]:
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS merchant ON {name}",
        f"CREATE POLICY merchant ON {name} USING ({mine}) WITH CHECK ({mine})",
    ]


def _exposure(name: str) -> list[str]:
    return [
        f"DROP POLICY IF EXISTS merchant ON {name}",
        f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY",
    ]


def _of_history(op: Any, name: str, statements: list[str], *, where: str = "true") -> None:
    """Execute these if there is a table of this name: in SQL, since a script cannot look."""
    op.execute(
        "DO $glam$ BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_class"
        f" WHERE oid = to_regclass({quoted_text(name)}) AND {where}) THEN "
        + "; ".join(statements)
        + "; END IF; END $glam$"
    )
