"""Whether row-level security binds the role that a service logs in as."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text

__all__ = ["ROW_SECURITY", "RowSecurity"]

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
        """Whether merchants are kept apart in name only."""
        return self.bypassed and bool(self.tables)
