"""Rows of one model as objects."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import ARRAY, JSON, ColumnElement, Select, and_, func, inspect, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.base import Base, MerchantMixin, SoftDeleteMixin
from shared.database.current import current_session
from shared.database.translation import translate_errors
from shared.errors import NotFoundError, ValidationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import async_sessionmaker
    from sqlalchemy.orm import InstrumentedAttribute, Mapper

__all__ = ["DEFAULT_LIMIT", "Repository", "T"]

T = TypeVar("T", bound=Base)

DEFAULT_LIMIT = 1000
"""Rows `Repository.find_all` returns at most when no limit is given."""

_COMPARISONS: dict[str, Callable[[Any, Any], ColumnElement[bool]]] = {
    "ne": lambda column, value: column.is_distinct_from(value),
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
    "in": lambda column, value: column.in_(value),
    "like": lambda column, value: column.like(value),
    "ilike": lambda column, value: column.ilike(value),
}


class Repository(Generic[T]):
    """Finds and changes rows of ``model``.

    Inside an open unit of work every call joins it: what several repositories and the outbox do
    commits together or not at all. Outside, every call is a transaction of its own.

    Rows of a model with `SoftDeleteMixin` are marked as deleted and hidden, unless asked for.

    Filters are keywords, joined by AND: ``status="paid"``; a list, tuple or set means any of them;
    None means NULL; and ``name__gte=...`` compares with ``ne gt gte lt lte in like ilike``.

    Args:
        model: the mapped class.
        session_factory: makes the sessions used outside of a unit of work.
        session: work in this session, which somebody else commits, whatever is open.
        merchant_id: see and write the rows of this merchant only; for models with
            `MerchantMixin`.

    Raises (every method):
        ConflictError: a unique constraint, or the version of the row, stands against it.
        ValidationError: unknown column, malformed id, or a constraint.
        DatabaseError: the database is away or refused.
    """

    def __init__(
        self,
        model: type[T],
        session_factory: async_sessionmaker[AsyncSession],
        *,
        session: AsyncSession | None = None,
        merchant_id: UUID | None = None,
    ) -> None:
        if merchant_id is not None and not issubclass(model, MerchantMixin):
            raise TypeError(f"{model.__name__} has no MerchantMixin")
        self.model = model
        self.session_factory = session_factory
        self._own_session = session
        self._merchant_id = merchant_id

    async def save(self, instance: T) -> T:
        """Add a new row; return it with what the database filled in."""
        self._refuse_foreign(instance)
        async with self._work() as session:
            session.add(instance)
            await session.flush()
            await session.refresh(instance)
            return instance

    async def update(self, instance: T) -> T:
        """Write the state of ``instance`` over its row; return the row as it is now.

        ``instance`` may come from elsewhere; it is not changed. A row that does not exist is added.
        """
        self._refuse_foreign(instance)
        identity = tuple(inspect(self.model).primary_key_from_instance(instance))
        async with self._work() as session:
            if self._merchant_id is not None and None not in identity:
                self._refuse_foreign(await session.get(self.model, identity))
            merged = await session.merge(instance)
            await session.flush()
            await session.refresh(merged)
            return merged

    async def delete(self, instance: T, *, hard: bool = False) -> None:
        """Delete the row of ``instance``; ``hard`` destroys where marking is the rule.

        A row that is gone already is no error.
        """
        identity = inspect(self.model).primary_key_from_instance(instance)
        await self._delete(tuple(identity), hard=hard)

    async def delete_by_id(self, id: str | UUID | int, *, hard: bool = False) -> None:  # noqa: A002
        """Delete the row with this primary key; ``hard`` as in `delete`. None there is no error."""
        await self._delete((self._identity(id),), hard=hard)

    async def restore(self, id: str | UUID | int) -> T:  # noqa: A002
        """Take back a soft delete; return the row.

        Raises:
            NotFoundError: no row with this id, deleted or not.
            TypeError: the model is not soft-deleted.
        """
        if not issubclass(self.model, SoftDeleteMixin):
            raise TypeError(f"{self.model.__name__} has no SoftDeleteMixin")
        async with self._work() as session:
            row = await session.get(self.model, self._identity(id), populate_existing=True)
            if row is None or self._foreign(row):
                raise NotFoundError(
                    f"no {self.model.__name__} {id}", resource=self.model.__name__, resource_id=id
                )
            row.is_deleted = False
            row.deleted_at = None
            await session.flush()
            await session.refresh(row)
            return row

    async def find_by_id(
        self,
        id: str | UUID | int,  # noqa: A002
        *,
        include_deleted: bool = False,
    ) -> T | None:
        """Return the row with this primary key; None when there is none."""
        (key,) = inspect(self.model).primary_key
        query = self._visible(select(self.model), include_deleted=include_deleted)
        async with self._work() as session:
            found: T | None = await session.scalar(query.where(key == self._identity(id)))
            return found

    async def find_all(
        self,
        *,
        limit: int | None = None,
        offset: int | None = None,
        order_by: str | Sequence[str] = (),
        after: T | None = None,
        include_deleted: bool = False,
        **filters: Any,
    ) -> list[T]:
        """Return the rows that match, in a definite order.

        Args:
            limit: at most so many; `DEFAULT_LIMIT` by default.
            offset: skip so many. The cost grows with it; ``after`` has none.
            order_by: columns, descending with a leading ``-``. The primary key is added, so that
                the order is total.
            after: the last row of the page before: what comes behind it. The columns of
                ``order_by`` must not be NULL.
            include_deleted: show soft-deleted rows as well.
            **filters: see the class.
        """
        if limit is not None and limit < 0:
            raise ValidationError("limit must not be negative", field="limit", value=limit)
        if offset is not None and offset < 0:
            raise ValidationError("offset must not be negative", field="offset", value=offset)
        order = self._order((order_by,) if isinstance(order_by, str) else order_by)
        query = self._filtered(select(self.model), include_deleted=include_deleted, **filters)
        if after is not None:
            query = query.where(_behind(order, after))
        query = query.order_by(
            *(column.desc() if descending else column.asc() for column, descending in order)
        )
        query = query.limit(DEFAULT_LIMIT if limit is None else limit).offset(offset)
        async with self._work() as session:
            return list(await session.scalars(query))

    async def count(self, *, include_deleted: bool = False, **filters: Any) -> int:
        """Return how many rows match."""
        query = select(func.count()).select_from(self.model)
        query = self._filtered(query, include_deleted=include_deleted, **filters)
        async with self._work() as session:
            return await session.scalar(query) or 0

    async def _session(self) -> AsyncIterator[AsyncSession]:
        """Yield one session, for ``async for session in self._session()`` of older subclasses.

        Committed when the loop ends. In a unit of work it is a savepoint of that: a ``commit()``
        of the subclass ends the savepoint, not the unit of work.
        """
        outer = self._own_session or current_session()
        if outer is None:
            session = self.session_factory()
        else:
            await outer.flush()
            session = AsyncSession(
                await outer.connection(),
                join_transaction_mode="create_savepoint",
                expire_on_commit=False,
            )
        with translate_errors():
            # A loop left by `return` abandons this generator; asyncio closes it, and the session.
            async with session:
                yield session
                await session.commit()

    @asynccontextmanager
    async def _work(self) -> AsyncIterator[AsyncSession]:
        joined = self._own_session or current_session()
        with translate_errors(self.model.__name__):
            if joined is not None:
                yield joined
            else:
                async with self.session_factory() as session:
                    yield session
                    await session.commit()

    async def _delete(self, identity: tuple[Any, ...], *, hard: bool) -> None:
        async with self._work() as session:
            row = await session.get(self.model, identity)
            if row is None or self._foreign(row):
                return
            if isinstance(row, SoftDeleteMixin) and not hard:
                if not row.is_deleted:
                    row.is_deleted = True
                    row.deleted_at = datetime.now(UTC)
            else:
                await session.delete(row)
            await session.flush()

    def _identity(self, given: object) -> Any:
        mapper: Mapper[T] = inspect(self.model)
        kind = mapper.primary_key[0].type.python_type
        if isinstance(given, kind) or not isinstance(given, str):
            return given
        try:
            return kind(given)
        except (TypeError, ValueError):
            raise ValidationError(
                f"not an id of {self.model.__name__}", field="id", value=given
            ) from None

    def _column(self, name: str) -> InstrumentedAttribute[Any]:
        mapper: Mapper[T] = inspect(self.model)
        if name not in mapper.column_attrs:
            known = ", ".join(sorted(mapper.column_attrs.keys()))
            raise ValidationError(
                f"{self.model.__name__} has no column {name}; it has {known}", field=name
            )
        column: InstrumentedAttribute[Any] = getattr(self.model, name)
        return column

    def _condition(self, name: str, value: Any) -> ColumnElement[bool]:
        column_name, _, comparison = name.rpartition("__")
        if column_name and comparison in _COMPARISONS:
            return _COMPARISONS[comparison](self._column(column_name), value)
        column = self._column(name)
        any_of = isinstance(value, list | tuple | set | frozenset)
        if any_of and not isinstance(column.type, ARRAY | JSON):
            return column.in_(value)
        return column.is_(None) if value is None else column == value

    def _filtered(
        self, query: Select[Any], *, include_deleted: bool, **filters: Any
    ) -> Select[Any]:
        conditions = [self._condition(name, value) for name, value in filters.items()]
        return self._visible(query, include_deleted=include_deleted).where(*conditions)

    def _visible(self, query: Select[Any], *, include_deleted: bool) -> Select[Any]:
        if self._merchant_id is not None:
            query = query.where(self._column("merchant_id") == self._merchant_id)
        if include_deleted or not issubclass(self.model, SoftDeleteMixin):
            return query
        return query.where(self.model.is_deleted.is_(False))

    def _foreign(self, row: Base) -> bool:
        """Whether the row is another merchant's than the one this repository works for."""
        return self._merchant_id is not None and row.merchant_id != self._merchant_id

    def _refuse_foreign(self, row: Base | None) -> None:
        if row is not None and self._foreign(row):
            raise ValidationError(
                f"this {self.model.__name__} belongs to another merchant", field="merchant_id"
            )

    def _order(self, names: Sequence[str]) -> list[tuple[InstrumentedAttribute[Any], bool]]:
        order = [(self._column(name.removeprefix("-")), name.startswith("-")) for name in names]
        named = {column.key for column, _ in order}
        mapper: Mapper[T] = inspect(self.model)
        for column in mapper.primary_key:
            key = mapper.get_property_by_column(column).key
            if key not in named:
                order.append((getattr(self.model, key), False))
        return order


def _behind(
    order: list[tuple[InstrumentedAttribute[Any], bool]], last: Base
) -> ColumnElement[bool]:
    """Rows after ``last``: further in the first column, or equal in it and further in the next."""
    alternatives: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for column, descending in order:
        value = getattr(last, column.key)
        further = column < value if descending else column > value
        alternatives.append(and_(*equal, further))
        equal.append(column == value)
    return or_(*alternatives)
