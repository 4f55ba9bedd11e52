"""Each merchant sees its own account, ledger and orders only."""

from alembic import op

from shared.database import expose_merchants, isolate_merchants

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = ("accounts", "ledger_entries", "orders", "order_lines")


def upgrade() -> None:
    """Keep merchants apart."""
    for table in TABLES:
        isolate_merchants(op, table)


def downgrade() -> None:
    """Show everybody everything again."""
    for table in TABLES:
        expose_merchants(op, table)
