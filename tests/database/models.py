"""Models of the tests in this folder."""

from decimal import Decimal
from uuid import UUID, uuid4

from sqlalchemy import CheckConstraint, MetaData, String
from sqlalchemy.orm import Mapped, mapped_column

from shared.database import Base, MerchantMixin, SoftDeleteMixin, TimestampedMixin, VersionedMixin

__all__ = ["Article", "Coupon", "Parcel", "Stock", "TestBase"]


class TestBase(Base):
    """Apart from `Base.metadata`, which other tests fill."""

    __abstract__ = True
    __test__ = False
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)


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
