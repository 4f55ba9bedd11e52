"""Row-level security: PostgreSQL itself keeps the rows of merchants apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text
from sqlalchemy.orm import Session

from shared.context import current

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import SessionTransaction

__all__ = ["TenantSession", "isolate_merchants"]

_TELL = text("SELECT set_config('glam.merchant_id', :merchant, true)")
_MINE = "merchant_id = nullif(current_setting('glam.merchant_id', true), '')::uuid"


class TenantSession(Session):
    """Tells PostgreSQL, when a transaction begins, for which merchant it works.

    That is ``tenant_id`` of the current context; without one, nothing is told. It ends with the
    transaction, so the next user of the connection does not inherit it.
    """

    @staticmethod
    def may_be_passed_by() -> bool:
        """Whether there is nothing to tell, so that a statement can do without a transaction."""
        context = current()
        return context is None or context.tenant_id is None


@event.listens_for(TenantSession, "after_begin")
def _tell(_session: Session, _transaction: SessionTransaction, connection: Connection) -> None:
    context = current()
    if context is not None and context.tenant_id is not None:
        connection.execute(_TELL, {"merchant": context.tenant_id})


def isolate_merchants(op: Any, table: str) -> None:
    """Let a migration give each merchant its own view of ``table``, which has a ``merchant_id``.

    From then on a transaction sees and writes the rows of the merchant of its context, whatever
    its statements forget to say; without a merchant it sees none. Neither does the table's owner
    escape. Superusers and roles with BYPASSRLS do: services must not log in as one, and what works
    across merchants (a backfill, an export) should.

    Args:
        op: ``alembic.op``.
        table: its name, in the service's schema.
    """
    name = op.get_bind().dialect.identifier_preparer.quote(table)
    op.execute(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY merchant ON {name} USING ({_MINE}) WITH CHECK ({_MINE})")
