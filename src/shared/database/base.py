"""The declarative base of all models, and the columns that many of them share."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, DateTime, Index, MetaData, String, Table, event, false, func
from sqlalchemy.dialects.postgresql import UUID as PGUUID
from sqlalchemy.ext.asyncio import AsyncAttrs
from sqlalchemy.orm import DeclarativeBase, Mapped, Mapper, declared_attr, mapped_column


class VersionedMixin:
    """Optimistic locking: two who read the same version cannot both write.

    The second gets a `ConflictError`.

    >>> order = await orders.save(Order(number="1001", total=Money(5, "EUR")))
    >>> order.version
    1
    >>> await orders.update_each([{"id": order.id, "version": 7, "status": "paid"}])
    ConflictError: 1 rows of orders were changed by someone else
    """

    version: Mapped[int] = mapped_column()


class Base(AsyncAttrs, DeclarativeBase):
    """Base of a service's models.

    Constraints and indexes without a name are named after their table and columns, so that
    migrations can name them again. What the database computes is read back on flush: an attribute
    never needs a query of its own, which an async session could not make.

    >>> class Article(Base, UUIDv7Mixin, TimestampedMixin):
    ...     __tablename__ = "articles"
    ...     name: Mapped[str] = mapped_column(String(80), unique=True)
    >>> sorted(constraint.name for constraint in Article.__table__.constraints)
    ['pk_articles', 'uq_articles_name']
    """

    __abstract__ = True

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )

    @declared_attr.directive
    @classmethod
    def __mapper_args__(cls) -> dict[str, Any]:
        """Read computed values back; let SQLAlchemy count and check a version, if there is one."""
        args: dict[str, Any] = {"eager_defaults": True}
        if issubclass(cls, VersionedMixin):
            args["version_id_col"] = cls.__table__.c.version
        return args


class MerchantMixin:
    """The row belongs to a tenant, whom the platform calls merchant.

    One index serves look-ups by tenant, with or without the domain. A model with a
    ``__table_args__`` of its own names the index there again if it wants it.

    >>> class Coupon(Base, UUIDv7Mixin, MerchantMixin):
    ...     __tablename__ = "coupons"
    >>> coupons = Repository(Coupon, database.session_factory, merchant_id=uuid7())
    """

    merchant_id: Mapped[UUID] = mapped_column(PGUUID(as_uuid=True))
    merchant_domain: Mapped[str] = mapped_column(String(255))

    @declared_attr.directive
    @classmethod
    def __table_args__(cls) -> Any:
        """Index of the tenant's rows, named after the table."""
        return (Index(None, "merchant_id", "merchant_domain"),)


@event.listens_for(MerchantMixin, "instrument_class", propagate=True)
def _mark_table(mapper: Mapper[Any], _class: type[Any]) -> None:
    """Say of the table that tenants are to be kept apart in it, for the author of a revision."""
    if isinstance(mapper.local_table, Table):
        mapper.local_table.info.setdefault("isolated", True)


class TimestampedMixin:
    """When the row was made and when it last changed, by the clock of the database.

    ``updated_at`` changes with every UPDATE: the ORM and Core write it, and for SQL written by hand
    a trigger does. ``create_all`` makes the trigger; a migration calls
    `create_updated_at_trigger`.
    """

    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), index=True
    )
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=func.now(),
        onupdate=func.clock_timestamp(),
        info={"touched": True},
    )


class SoftDeleteMixin:
    """A deleted row stays, marked. `Repository` marks, hides and restores.

    >>> order = await orders.save(Order(number="1001", total=Money(5, "EUR")))
    >>> await orders.delete(order)
    >>> await orders.count(), await orders.count(include_deleted=True)
    (0, 1)
    >>> (await orders.restore(order.id)).is_deleted
    False
    """

    deleted_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True), default=None)
    is_deleted: Mapped[bool] = mapped_column(default=False, server_default=false(), index=True)


_TOUCH = """\
CREATE OR REPLACE FUNCTION {schema}touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at := clock_timestamp();
  RETURN NEW;
END $$"""

# Only when something else changed: a no-op UPDATE is not a change.
_TRIGGER = """\
CREATE TRIGGER touch_updated_at BEFORE UPDATE ON {table}
FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION {schema}touch_updated_at()"""


def create_updated_at_trigger(op: Any, table: str) -> None:
    """Let a migration give ``table`` the trigger that keeps ``updated_at`` true.

    Args:
        op: ``alembic.op``.
        table: its name, in the service's schema.
    """
    quote = op.get_bind().dialect.identifier_preparer.quote
    op.execute(_TOUCH.format(schema=""))
    op.execute(_TRIGGER.format(schema="", table=quote(table)))


@event.listens_for(Table, "after_create")
def _add_trigger(table: Table, connection: Connection, **_: object) -> None:
    column = table.c.get("updated_at")
    if column is None or not column.info.get("touched"):
        return
    if connection.dialect.name != "postgresql":
        return
    preparer = connection.dialect.identifier_preparer
    schema = f"{preparer.quote_schema(table.schema)}." if table.schema else ""
    for statement in (_TOUCH, _TRIGGER):
        sql = statement.format(schema=schema, table=preparer.format_table(table))
        connection.exec_driver_sql(sql)
