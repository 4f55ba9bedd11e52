"""Accounts, their ledger, and the order lines that are paid with it."""

import sqlalchemy as sa
from alembic import op

from shared.delivery import create_delivery_tables, drop_delivery_tables

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    create_delivery_tables(op)
    now = sa.func.now()
    op.create_table(
        "accounts",
        sa.Column("merchant_id", sa.Uuid, primary_key=True),
        sa.Column("merchant_domain", sa.String(255), nullable=False),
        sa.Column("email", sa.String(320)),
        sa.Column("balance", sa.Integer, nullable=False),
        sa.Column("entries", sa.Integer, nullable=False),
        sa.Column("crossings", sa.Integer, nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
    )
    op.create_table(
        "ledger_entries",
        sa.Column("merchant_id", sa.Uuid, sa.ForeignKey("accounts.merchant_id")),
        sa.Column("position", sa.Integer, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("amount", sa.Integer, nullable=False),
        sa.Column("balance", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("merchant_id", "position"),
        sa.UniqueConstraint("merchant_id", "kind", "reference"),
        sa.CheckConstraint("(kind = 'debit') = (amount < 0)", name="sign"),
    )
    op.create_table(
        "orders",
        sa.Column("merchant_id", sa.Uuid, sa.ForeignKey("accounts.merchant_id")),
        sa.Column("order_id", sa.String(64)),
        sa.Column("revised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("cancelled", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("merchant_id", "order_id"),
    )
    op.create_table(
        "order_lines",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("merchant_id", sa.Uuid, sa.ForeignKey("accounts.merchant_id"), nullable=False),
        sa.Column("order_id", sa.String(64), nullable=False),
        sa.Column("line_id", sa.String(64), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("price", sa.Numeric(18, 4), nullable=False),
        sa.Column("paid", sa.Boolean, nullable=False),
        sa.UniqueConstraint("merchant_id", "order_id", "line_id"),
    )
    op.create_index(
        "ix_order_lines_unpaid",
        "order_lines",
        ["merchant_id", "id"],
        postgresql_where=sa.text("NOT paid"),
    )


def downgrade() -> None:
    """Drop the tables."""
    for table in ("order_lines", "orders", "ledger_entries", "accounts"):
        op.drop_table(table)
    drop_delivery_tables(op)
