"""Idempotency keys."""

from alembic import op

from shared.delivery import create_idempotency_table, drop_idempotency_table

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create their table."""
    create_idempotency_table(op)


def downgrade() -> None:
    """Drop it."""
    drop_idempotency_table(op)
