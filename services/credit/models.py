"""Tables of the credit service."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from shared.database import Base

__all__ = ["Account", "EntryKind", "LedgerEntry", "Order", "OrderLine"]


class EntryKind(StrEnum):
    """Why a balance changed."""

    TRIAL = "trial"
    TOP_UP = "top_up"
    DEBIT = "debit"


class Account(Base):
    """The account of a merchant. Its row lock orders everything that happens to the merchant."""

    __tablename__ = "accounts"

    merchant_id: Mapped[UUID] = mapped_column(primary_key=True)
    merchant_domain: Mapped[str] = mapped_column(String(255))
    email: Mapped[str | None] = mapped_column(String(320))
    balance: Mapped[int]
    entries: Mapped[int] = mapped_column(doc="ledger entries so far; the position of the last")
    crossings: Mapped[int] = mapped_column(doc="times the balance fell to the low mark or below")
    opened_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class LedgerEntry(Base):
    """One change of a balance, never altered. Positions of an account count 1, 2, 3, ..."""

    __tablename__ = "ledger_entries"
    __table_args__ = (
        # Once each, whatever is delivered twice: a credit by its reference, a debit by its line.
        UniqueConstraint(
            "merchant_id",
            "kind",
            "reference",
            name="ledger_entries_merchant_id_kind_reference_key",
        ),
        CheckConstraint("(kind = 'debit') = (amount < 0)", name="sign"),
    )

    merchant_id: Mapped[UUID] = mapped_column(ForeignKey(Account.merchant_id), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))
    reference: Mapped[str] = mapped_column(Text, doc="the trial, the renewal or the order line")
    amount: Mapped[int]
    balance: Mapped[int] = mapped_column(doc="after this entry")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Order(Base):
    """The newest version seen of an order."""

    __tablename__ = "orders"

    merchant_id: Mapped[UUID] = mapped_column(ForeignKey(Account.merchant_id), primary_key=True)
    order_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    revised_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    currency: Mapped[str] = mapped_column(String(3))
    cancelled: Mapped[bool]


class OrderLine(Base):
    """An order line and whether its credit was taken. Unpaid lines wait for the next top-up."""

    __tablename__ = "order_lines"
    __table_args__ = (
        UniqueConstraint(
            "merchant_id",
            "order_id",
            "line_id",
            name="order_lines_merchant_id_order_id_line_id_key",
        ),
        Index("ix_order_lines_unpaid", "merchant_id", "id", postgresql_where=text("NOT paid")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    merchant_id: Mapped[UUID] = mapped_column(ForeignKey(Account.merchant_id))
    order_id: Mapped[str] = mapped_column(String(64))
    line_id: Mapped[str] = mapped_column(String(64))
    title: Mapped[str] = mapped_column(Text)
    quantity: Mapped[int]
    price: Mapped[Decimal] = mapped_column(Numeric(18, 4))
    paid: Mapped[bool]
    order: Mapped[Order] = relationship(
        primaryjoin="and_(foreign(OrderLine.merchant_id) == Order.merchant_id,"
        " foreign(OrderLine.order_id) == Order.order_id)",
        viewonly=True,
    )
