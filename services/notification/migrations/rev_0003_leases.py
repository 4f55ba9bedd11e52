"""Partitions of the outbox, leased by the replicas."""

from alembic import op

from shared.delivery import create_outbox_leases, drop_outbox_leases

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Split the outbox."""
    create_outbox_leases(op)


def downgrade() -> None:
    """Make it one again."""
    drop_outbox_leases(op)
