"""Outbox and inbox."""

from alembic import op

from shared.delivery import create_delivery_tables, drop_delivery_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
    create_delivery_tables(op)


def downgrade() -> None:
    """Drop them."""
    drop_delivery_tables(op)
