"""Models of the tests in this folder."""

import enum
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    ARRAY,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, registry, relationship

from shared.database import (
    Base,
    HistoryMixin,
    JsonModel,
    MerchantMixin,
    Money,
    SoftDeleteMixin,
    TimestampedMixin,
    UUIDv7Mixin,
    VersionedMixin,
    money_column,
)

__all__ = [
    "Account",
    "Address",
    "Article",
    "Coupon",
    "Line",
    "Order",
    "Parcel",
    "Reading",
    "Status",
    "Stock",
    "TestBase",
]


class TestBase(Base):
    """Apart from `Base`, which other tests fill."""

    __abstract__ = True
    __test__ = False
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)
    _sa_registry = registry(metadata=metadata)  # names of its own: services have an Order, too


class Article(TestBase, MerchantMixin, TimestampedMixin):
    __tablename__ = "articles"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(20), unique=True)
    price: Mapped[Decimal | None] = mapped_column()
    stock: Mapped[int] = mapped_column(CheckConstraint("stock >= 0", name="stock"), default=0)


class Parcel(TestBase, MerchantMixin):
    __tablename__ = "parcels"

    id: Mapped[int] = mapped_column(primary_key=True)


class Coupon(TestBase, SoftDeleteMixin):
    __tablename__ = "coupons"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str]


class Stock(TestBase, VersionedMixin):
    __tablename__ = "stocks"

    id: Mapped[int] = mapped_column(primary_key=True)
    count: Mapped[int]


class Status(enum.Enum):
    NEW = "new"
    PAID = "paid"


class Address(BaseModel):
    model_config = ConfigDict(frozen=True)

    street: str
    lines: tuple[str, ...] = ()
    since: datetime | None = None


class Order(TestBase, UUIDv7Mixin, MerchantMixin, SoftDeleteMixin, VersionedMixin):
    """Everything at once: the merchant's, soft-deleted, versioned, with columns of every kind."""

    __tablename__ = "orders"
    __table_args__ = (UniqueConstraint("merchant_id", "number"),)

    number: Mapped[str] = mapped_column(String(20))
    status: Mapped[Status] = mapped_column(default=Status.NEW)
    note: Mapped[str | None] = mapped_column(Text)
    total: Mapped[Money | None] = money_column("total", nullable=True)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    data: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    address: Mapped[Address | None] = mapped_column(JsonModel(Address))
    placed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    lines: Mapped[list["Line"]] = relationship(back_populates="order")


class Line(TestBase, MerchantMixin, SoftDeleteMixin):
    __tablename__ = "lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"))
    sku: Mapped[str]
    order: Mapped[Order] = relationship(back_populates="lines")


class Account(TestBase, MerchantMixin, HistoryMixin):
    __tablename__ = "accounts"

    id: Mapped[int] = mapped_column(primary_key=True)
    credits: Mapped[int] = mapped_column(default=0)


class Reading(TestBase, SoftDeleteMixin):
    """A key of two columns, and a name that is free again once its row is deleted."""

    __tablename__ = "readings"
    __table_args__ = (
        Index("ux_name", "name", unique=True, postgresql_where=text("NOT is_deleted")),
    )

    device: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]
