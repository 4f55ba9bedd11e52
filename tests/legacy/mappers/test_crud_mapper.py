from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel
from sqlalchemy import ForeignKey, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.pool import StaticPool

from shared.mappers import CRUDMapper

if TYPE_CHECKING:
    from collections.abc import Iterator


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    note: Mapped[str | None]
    lines: Mapped[list[Line]] = relationship()


class Line(Base):
    __tablename__ = "lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


class OrderIn(BaseModel):
    title: str
    note: str | None = "by default"


class OrderPatch(BaseModel):
    title: str | None = None
    note: str | None = None
    typo: str | None = None


class OrderOut(BaseModel):
    id: int
    title: str
    note: str | None


class OrderMapper(CRUDMapper[Order, OrderIn, OrderPatch | None, OrderOut]):
    model_cls = Order
    out_schema = OrderOut


mapper = OrderMapper()


@pytest.fixture
def session() -> Iterator[Session]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Order(id=1, title="first", note="n"))
        session.commit()
        yield session
    engine.dispose()


@pytest.fixture
def order(session: Session) -> Order:
    order = session.get_one(Order, 1)
    assert order.title == "first"
    return order


def test_a_model_is_made_of_all_fields_and_what_is_given_beside_them() -> None:
    order = mapper.to_model(OrderIn(title="a"), id=7)
    assert (order.id, order.title, order.note) == (7, "a", "by default")
    assert mapper.to_model(OrderIn(title="a"), title="b").title == "b"


def test_a_field_the_model_does_not_have_is_refused(order: Order) -> None:
    with pytest.raises(TypeError, match="typo"):
        mapper.to_model(OrderIn(title="a"), typo=1)
    with pytest.raises(TypeError, match="Order has no typo"):
        mapper.patch_model(order, OrderPatch(title="new", typo="x"))
    assert order.title == "first"


def test_a_patch_writes_what_was_sent_none_included(order: Order) -> None:
    mapper.patch_model(order, OrderPatch(note=None))
    assert (order.title, order.note) == ("first", None)
    mapper.patch_model(order, OrderPatch(title="second"))
    assert (order.title, order.note) == ("second", None)


def test_no_patch_changes_nothing(order: Order) -> None:
    mapper.patch_model(order, None)
    assert not mapper.is_dirty(order)


def test_models_come_out_as_schemas(order: Order) -> None:
    assert mapper.to_out(order) == OrderOut(id=1, title="first", note="n")
    assert mapper.list_to_out([order, order]) == [mapper.to_out(order)] * 2
    assert mapper.list_to_out([]) == []


def test_dirty_is_what_differs_from_its_row(session: Session, order: Order) -> None:
    assert not mapper.is_dirty(order)
    order.title = "second"
    assert mapper.is_dirty(order)
    order.title = "first"
    assert not mapper.is_dirty(order)
    order.title = "second"
    session.flush()
    assert not mapper.is_dirty(order)
    order.lines.append(Line())
    assert mapper.is_dirty(order)
    session.rollback()
    assert not mapper.is_dirty(order)


def test_what_has_no_row_yet_is_dirty(session: Session) -> None:
    order = Order()
    assert mapper.is_dirty(order)
    order.title = "new"
    session.add(order)
    assert mapper.is_dirty(order)
    session.flush()
    assert not mapper.is_dirty(order)


def test_asking_loads_nothing(session: Session, order: Order) -> None:
    session.expire(order)
    statements: list[object] = []
    event.listen(session.get_bind(), "before_cursor_execute", lambda *args: statements.append(args))
    assert not mapper.is_dirty(order)
    order.note = "set while expired"
    assert mapper.is_dirty(order)
    assert statements == []
