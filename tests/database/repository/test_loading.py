"""Relationships: loaded when asked for, or an error that says how to ask."""

import pytest
from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Mapped, mapped_column, registry, relationship, selectinload

from shared.database import Base, Database, Repository, bind_session
from tests.database.models import Line, Order
from tests.database.orders import line, order


async def test_a_relationship_not_asked_for_names_the_line_to_write(database: Database) -> None:
    orders = Repository(Order, database.session_factory)
    lines = Repository(Line, database.session_factory)
    (one,) = await orders.insert_many([order("1")])
    await lines.insert_many([line(1, one)])
    words = r"ask for it with load=\[selectinload\(Order\.lines\)\]"
    rows = [*await orders.list(), *(await orders.page()).items]
    rows += [*(await orders.page_by_key()).items, await orders.one(number="1")]
    async with orders.stream() as stream:
        rows += [row async for row in stream]
    async with database.transaction() as session:
        with bind_session(session):
            rows += [*await orders.list(), *await orders.claim(1)]
            for row in rows:
                with pytest.raises(InvalidRequestError, match=words):
                    _ = row.lines
            (row,) = await orders.list(load=[selectinload(Order.lines)])
            with pytest.raises(InvalidRequestError, match=r"selectinload\(Line\.order\)"):
                await row.lines[0].awaitable_attrs.order
            # A single row may fetch what belongs to it, where there is a session to do it.
            session.expunge_all()
            found = await orders.get(one.id)
            assert [one.id for one in await found.awaitable_attrs.lines] == [1]
            found.note = "changed"
    assert (await orders.get(one.id)).note == "changed"


class EagerBase(Base):
    __abstract__ = True
    metadata = MetaData()
    _sa_registry = registry(metadata=metadata)


class Shelf(EagerBase):
    __tablename__ = "shelves"

    id: Mapped[int] = mapped_column(primary_key=True)
    boxes: Mapped[list["Box"]] = relationship(lazy="selectin")


class Box(EagerBase):
    __tablename__ = "boxes"

    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(ForeignKey("shelves.id"))
    kind_id: Mapped[int] = mapped_column(ForeignKey("kinds.id"))
    kind: Mapped["Kind"] = relationship(lazy="joined")


class Kind(EagerBase):
    __tablename__ = "kinds"

    id: Mapped[int] = mapped_column(primary_key=True)
    boxes: Mapped[list[Box]] = relationship(viewonly=True)


async def test_what_a_model_declares_as_eager_is_loaded_as_declared(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(EagerBase.metadata.create_all)
    shelves = Repository(Shelf, database.session_factory)
    kind = Kind(id=1)
    await shelves.save(Shelf(id=1, boxes=[Box(id=n, kind=kind) for n in (1, 2)]))
    (shelf,) = await shelves.list()
    assert [box.kind.id for box in shelf.boxes] == [1, 1]
    with pytest.raises(InvalidRequestError, match=r"selectinload\(Kind\.boxes\)"):
        _ = shelf.boxes[0].kind.boxes
    found = await shelves.get(1)
    assert [box.kind.id for box in found.boxes] == [1, 1]
