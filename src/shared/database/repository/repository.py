"""Rows of one model as objects."""

from __future__ import annotations

import builtins
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from sqlalchemy import Select, and_, exists, func, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database.base import Base, MerchantMixin, SoftDeleteMixin
from shared.database.engine.session import current_session
from shared.database.engine.translation import translate_errors
from shared.database.models.history import Change, changes_of
from shared.database.repository.autocommit import AutocommitPath, autocommit_engine_of
from shared.database.repository.bulk import (
    copy_rows,
    delete_rows,
    insert_missing_rows,
    insert_rows,
    update_each,
    update_rows,
    upsert_rows,
)
from shared.database.repository.locks import RowLock
from shared.database.repository.pages import (
    Cursor,
    CursorSigner,
    KeysetPage,
    NumberedPage,
    ordering,
    place_of,
    sortable,
)
from shared.database.repository.scope import Scope
from shared.errors import ConflictError, NotFoundError, ValidationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
    from uuid import UUID

    from pydantic import SecretStr
    from sqlalchemy import ColumnElement, Engine
    from sqlalchemy.ext.asyncio import async_sessionmaker
    from sqlalchemy.orm.interfaces import ORMOption

    from shared.database.repository.filters import Condition


T = TypeVar("T", bound=Base)

DEFAULT_LIMIT = 1000
"""Rows `Repository.list` returns at most when no limit is given."""

_MAX_PAGE = 1000


class Repository(Generic[T]):
    """Finds and changes rows of ``model``.

    Inside an open unit of work every call joins it: what several repositories and the outbox do
    commits together or not at all. Outside, every call is a transaction of its own, and the rows it
    returns are detached.

    Rows are chosen by keywords, joined by AND: ``status="paid"``, ``total__gte=3``; see `where`,
    whose conditions can be given before them, as can SQLAlchemy's expressions:
    ``list(where(status="paid") | where(total=0), Order.placed_at > day, currency="EUR")``.

    Rows of a model with `SoftDeleteMixin` are marked as deleted and hidden, here and where another
    row refers to them, unless asked for with ``include_deleted``.

    Relationships are loaded when asked for: ``load=[selectinload(Order.lines)]``. Of rows in lists
    the others raise an error that says so, instead of one query for each row.

    >>> orders = Repository(Order, database.session_factory)
    >>> order = await orders.save(Order(number="1001", total=Money("12.50", "EUR")))
    >>> await orders.exists(status="new", total_amount__gte=10)
    True

    Args:
        model: the mapped class.
        session_factory: makes the sessions used outside of a unit of work.
        session: work in this session, which somebody else commits, whatever is open.
        merchant_id: see and write the rows of this tenant only; for models with
            `MerchantMixin`. A new row that names none gets this one.
        cursor_secret: signs the cursors of `page_by_key`; by default that of the settings.

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
        cursor_secret: str | None = None,
    ) -> None:
        if merchant_id is not None and not issubclass(model, MerchantMixin):
            raise TypeError(f"{model.__name__} has no MerchantMixin")
        self.model = model
        self.session_factory = session_factory
        self._own_session = session
        self._scope = Scope(model, merchant_id)
        self._cursor_secret = cursor_secret

    # -- one row -----------------------------------------------------------------------------

    async def save(self, instance: T) -> T:
        """Add a new row; return it with what the database filled in.

        >>> order = await orders.save(Order(number="1001", total=Money("12.50", "EUR")))
        >>> order.status, order.version
        ('new', 1)
        """
        await self._claim_for_tenant(instance)
        engine = self._alone()
        if engine is not None:
            path = AutocommitPath.of(self.model)
            if path is not None and type(instance) is self.model and inspect(instance).transient:
                with translate_errors(self.model.__name__, table=self.model.__table__):
                    return await path.insert(engine, instance)
        async with self._work() as session:
            session.add(instance)
            await session.flush()
            await session.refresh(instance)
            return instance

    async def update(self, instance: T) -> T:
        """Write the state of ``instance`` over its row; return the row as it is now.

        ``instance`` may come from elsewhere; it is not changed. A row that does not exist is added.
        """
        identity = tuple(self._scope.mapper.primary_key_from_instance(instance))
        async with self._work() as session:
            await self._claim_for_tenant(instance, session)
            if self._scope.merchant_id is not None and None not in identity:
                self._scope.refuse_foreign(await session.get(self.model, identity))
            merged = await session.merge(instance)
            await session.flush()
            await session.refresh(merged)
            return merged

    async def delete(self, instance: T, *, hard: bool = False) -> None:
        """Delete the row of ``instance``; ``hard`` destroys where marking is the rule.

        A row that is gone already is not an error.
        """
        identity = self._scope.mapper.primary_key_from_instance(instance)
        await self._delete(tuple(identity), hard=hard)

    async def delete_by_id(
        self,
        id: str | UUID | int | tuple[Any, ...],  # noqa: A002
        *,
        hard: bool = False,
    ) -> None:
        """Delete the row with this primary key, if it is there; ``hard`` as in `delete`."""
        await self._delete(self._scope.identity(id), hard=hard)

    async def restore(self, id: str | UUID | int | tuple[Any, ...]) -> T:  # noqa: A002
        """Take back a soft delete; return the row.

        Raises:
            NotFoundError: no row with this id, deleted or not.
            TypeError: the model is not soft-deleted.
        """
        if not issubclass(self.model, SoftDeleteMixin):
            raise TypeError(f"{self.model.__name__} has no SoftDeleteMixin")
        async with self._work() as session:
            row = await session.get(self.model, self._scope.identity(id), populate_existing=True)
            if row is None or self._scope.foreign(row):
                self._not_found(id)
            row.is_deleted = False
            row.deleted_at = None
            await session.flush()
            await session.refresh(row)
            return row

    async def find_by_id(
        self,
        id: str | UUID | int | tuple[Any, ...],  # noqa: A002
        *,
        include_deleted: bool = False,
        load: Sequence[ORMOption] = (),
        lock: RowLock | None = None,
    ) -> T | None:
        """Return the row with this primary key; None when there is none.

        Args:
            id: the key; a tuple where it has several columns.
            include_deleted: also when it is soft-deleted.
            load: relationships to load with it.
            lock: keep it from others until the unit of work ends.
        """
        identity = self._scope.identity(id)
        engine = None if load or lock is not None else self._alone()
        path = AutocommitPath.of(self.model) if engine is not None else None
        if engine is not None and path is not None:
            with translate_errors(self.model.__name__, table=self.model.__table__):
                row = await path.find(engine, identity, include_deleted=include_deleted)
            return None if row is None or self._scope.foreign(row) else row
        query = select(self.model).where(*self._key_is(identity))
        query = query.where(*self._scope.own(include_deleted=include_deleted))
        query = query.options(*self._scope.related(include_deleted=include_deleted), *load)
        async with self._work(lock) as session:
            found: T | None = await session.scalar(self._locked(query, lock))
            return found

    async def get(
        self,
        id: str | UUID | int | tuple[Any, ...],  # noqa: A002
        *,
        include_deleted: bool = False,
        load: Sequence[ORMOption] = (),
        lock: RowLock | None = None,
    ) -> T:
        """Return the row with this primary key; arguments as `find_by_id`.

        >>> order = await orders.save(Order(number="1001", total=Money("12.50", "EUR")))
        >>> (await orders.get(order.id)).number
        '1001'
        >>> await orders.get("0192f0c1-2a00-7000-8000-000000000001")
        NotFoundError: no Order 0192f0c1-2a00-7000-8000-000000000001

        Raises:
            NotFoundError: there is none.
        """
        row = await Repository.find_by_id(
            self, id, include_deleted=include_deleted, load=load, lock=lock
        )
        if row is None:
            self._not_found(id)
        return row

    async def one(
        self,
        *given: Condition,
        include_deleted: bool = False,
        load: Sequence[ORMOption] = (),
        lock: RowLock | None = None,
        **filters: Any,
    ) -> T:
        """Return the one row that matches.

        Raises:
            NotFoundError: none does.
            ConflictError: several do.
        """
        query = self._query(given, filters, include_deleted=include_deleted, load=load).limit(2)
        async with self._work(lock) as session:
            rows: Sequence[T] = (await session.scalars(self._locked(query, lock))).unique().all()
        if not rows:
            raise NotFoundError(f"no such {self.model.__name__}", resource=self.model.__name__)
        if len(rows) > 1:
            raise ConflictError(
                f"several rows of {self.model.__tablename__} match, and one is asked for",
                conflicting_resource=self.model.__tablename__,
            )
        return rows[0]

    # -- many rows ---------------------------------------------------------------------------

    async def find_all(
        self,
        *given: Condition,
        limit: int | None = None,
        offset: int | None = None,
        order_by: str | Sequence[str] = (),
        after: T | None = None,
        include_deleted: bool = False,
        load: Sequence[ORMOption] = (),
        lock: RowLock | None = None,
        **filters: Any,
    ) -> builtins.list[T]:
        """Return the rows that match, in a definite order.

        >>> rows = [Order(number=f"{n}", total=Money(n, "EUR")) for n in range(3)]
        >>> _ = await orders.insert_many(rows)
        >>> found = await orders.find_all(
        ...     where(number="0") | where(total_amount__gt=1), order_by="-number"
        ... )
        >>> [order.number for order in found]
        ['2', '0']

        Args:
            *given: conditions; see the class.
            limit: at most so many; `DEFAULT_LIMIT` by default.
            offset: skip so many. The cost grows with it; ``after`` has none.
            order_by: columns, descending with a leading ``-``. The primary key is added, so that
                the order is total. NULL is the greatest value.
            after: the last row of the page before: what comes behind it.
            include_deleted: show soft-deleted rows as well.
            load: relationships to load with the rows.
            lock: keep the rows from others until the unit of work ends.
            **filters: see `where`.
        """
        _not_negative("limit", limit)
        _not_negative("offset", offset)
        order = self._scope.order(order_by)
        query = self._query(given, filters, include_deleted=include_deleted, load=load)
        query = query.order_by(*ordering(order))
        if after is not None:
            query = query.where(Cursor(place_of(after, order)).beyond(order))
        query = query.limit(DEFAULT_LIMIT if limit is None else limit).offset(offset)
        async with self._work(lock) as session:
            return builtins.list((await session.scalars(self._locked(query, lock))).unique())

    list = find_all

    async def count(self, *given: Condition, include_deleted: bool = False, **filters: Any) -> int:
        """Return how many rows match."""
        async with self._work() as session:
            return await self._count(session, given, filters, include_deleted=include_deleted)

    async def exists(
        self, *given: Condition, include_deleted: bool = False, **filters: Any
    ) -> bool:
        """Whether a row matches."""
        conditions = self._scope.conditions(given, filters, include_deleted=include_deleted)
        options = self._scope.related(given, include_deleted=include_deleted)
        query = select(exists(select(self.model).where(*conditions))).options(*options)
        async with self._work() as session:
            return bool(await session.scalar(query))

    @asynccontextmanager
    async def stream(
        self,
        *given: Condition,
        order_by: str | Sequence[str] = (),
        batch: int = 1000,
        include_deleted: bool = False,
        load: Sequence[ORMOption] = (),
        **filters: Any,
    ) -> AsyncIterator[AsyncIterator[T]]:
        """Go through all rows that match, however many, with ``batch`` of them in memory.

        ``async with articles.stream(stock=0) as rows:`` and then ``async for row in rows``. The
        rows come through a cursor of the server, as they were when the block began; leaving the
        block closes it, so a loop may be left at any time. A connection is held for so long.

        Args:
            *given: conditions; see the class.
            order_by: as `find_all`.
            batch: rows fetched at a time.
            include_deleted: show soft-deleted rows as well.
            load: relationships to load with each batch; ``selectinload`` only.
            **filters: see `where`.
        """
        if batch < 1:
            raise ValidationError(
                f"batch is {batch}: it must be 1 or more", field="batch", value=batch
            )
        query = self._query(given, filters, include_deleted=include_deleted, load=load)
        query = query.order_by(*ordering(self._scope.order(order_by)))
        async with self._work() as session:
            rows = await session.stream_scalars(query.execution_options(yield_per=batch))
            try:
                yield rows.__aiter__()
            finally:
                await rows.close()

    # -- pages -------------------------------------------------------------------------------

    async def page(
        self,
        *given: Condition,
        page: int = 1,
        limit: int = 50,
        order_by: str | Sequence[str] = (),
        include_deleted: bool = False,
        load: Sequence[ORMOption] = (),
        **filters: Any,
    ) -> NumberedPage[T]:
        """Return one page by its number, with the number of rows in all.

        The cost grows with both, and rows that are inserted or deleted meanwhile shift the pages:
        for anything long there is `page_by_key`.

        Args:
            *given: conditions; see the class.
            page: from 1.
            limit: rows on a page, 1 to 1000.
            order_by: as `find_all`.
            include_deleted: show soft-deleted rows as well.
            load: relationships to load with the rows.
            **filters: see `where`.
        """
        if page < 1:
            raise ValidationError(f"page is {page}: pages count from 1", field="page", value=page)
        _fits_a_page(limit)
        query = self._query(given, filters, include_deleted=include_deleted, load=load)
        query = query.order_by(*ordering(self._scope.order(order_by)))
        async with self._work() as session:
            total = await self._count(session, given, filters, include_deleted=include_deleted)
            found = await session.scalars(query.limit(limit).offset((page - 1) * limit))
            return NumberedPage(builtins.list(found.unique()), page, limit, total)

    async def page_by_key(
        self,
        *given: Condition,
        cursor: str | None = None,
        limit: int = 50,
        order_by: str | Sequence[str] = (),
        include_deleted: bool = False,
        load: Sequence[ORMOption] = (),
        **filters: Any,
    ) -> KeysetPage[T]:
        """Return the page at a cursor (keyset pagination); each costs the same, however far it is.

        >>> rows = [Order(number=f"{n}", total=Money(n, "EUR")) for n in range(3)]
        >>> _ = await orders.insert_many(rows)
        >>> page = await orders.page_by_key(order_by="number", limit=2)
        >>> page = await orders.page_by_key(order_by="number", limit=2, cursor=page.next)
        >>> [order.number for order in page.items], page.has_more
        (['2'], False)

        Args:
            *given: conditions; see the class.
            cursor: ``next`` or ``previous`` of another page; None for the first.
            limit: rows on a page, 1 to 1000.
            order_by: as `find_all`; the same for all pages. An index on these columns and the
                primary key makes it quick.
            include_deleted: show soft-deleted rows as well.
            load: relationships to load with the rows.
            **filters: see `where`.

        Raises:
            ValidationError: the cursor was changed, or made for another list, tenant or order.
            RuntimeError: no secret to sign cursors with.
        """
        _fits_a_page(limit)
        signer = self._signer()
        order = self._scope.order(order_by)
        sortable(order)
        audience = (self.model.__tablename__, self._scope.merchant_id)
        place = None if cursor is None else signer.read(cursor, order, audience)
        backward = place is not None and place.backward
        query = self._query(given, filters, include_deleted=include_deleted, load=load)
        query = query.order_by(*ordering(order, backward=backward)).limit(limit + 1)
        if place is not None:
            query = query.where(place.beyond(order))
        async with self._work() as session:
            found = builtins.list((await session.scalars(query)).unique())
        more, items = len(found) > limit, found[:limit]
        if backward:
            items.reverse()

        def link(*, towards_end: bool) -> str | None:
            if not (more if towards_end != backward else place is not None):
                return None
            if not items and place is not None:
                # Nothing is left beyond: what stands at this very place is on the way back.
                turned = Cursor(place.values, not towards_end, inclusive=not place.inclusive)
                return signer.write(turned, order, audience)
            edge = place_of(items[-1] if towards_end else items[0], order)
            return signer.write(Cursor(edge, backward=not towards_end), order, audience)

        return KeysetPage(items, limit, link(towards_end=True), link(towards_end=False))

    # -- rows for one worker -----------------------------------------------------------------

    async def claim(
        self,
        limit: int,
        *given: Condition,
        order_by: str | Sequence[str] = (),
        load: Sequence[ORMOption] = (),
        **filters: Any,
    ) -> builtins.list[T]:
        """Take rows that no other worker has: they are this unit of work's until it ends.

        ``FOR UPDATE SKIP LOCKED``: workers neither wait for one another nor get the same row. What
        is done with a row (and its new state, so that it matches no more) commits with the claim;
        a worker that dies gives its rows back.

        >>> _ = await orders.save(Order(number="1001", total=Money(5, "EUR")))
        >>> async with units() as uow:
        ...     for order in await uow.repository(Order).claim(10, status="new"):
        ...         order.status = "sent"
        >>> await orders.count(status="sent")
        1

        Args:
            limit: at most so many.
            *given: conditions; see the class.
            order_by: as `find_all`: which rows first.
            load: relationships to load with the rows, which are not locked.
            **filters: see `where`.

        Raises:
            RuntimeError: outside of a unit of work, where the claim would end at once.
        """
        return await Repository.find_all(
            self,
            *given,
            limit=limit,
            order_by=order_by,
            load=load,
            lock=RowLock(skip_locked=True),
            **filters,
        )

    # -- bulk --------------------------------------------------------------------------------

    async def insert_many(self, rows: Iterable[T | Mapping[str, Any]]) -> builtins.list[T]:
        """Insert rows, all or none; return them in the order given, as the database made them.

        Args:
            rows: instances, or mappings by attribute. What a row does not give is left to the
                defaults. Instances given are read, not changed: go on with those returned.
        """
        async with self._work() as session:
            await session.flush()
            return await insert_rows(self._scope, session, rows)

    async def insert_missing(
        self, rows: Iterable[T | Mapping[str, Any]], *, conflict: Sequence[str] | None = None
    ) -> builtins.list[T]:
        """Insert the rows that are not there yet; return those, so that one knows which were new.

        A row that is there is left as it is, soft-deleted or not, and whosesoever it is.

        Args:
            rows: instances, or mappings by attribute.
            conflict: the columns of a unique constraint or index, by which rows are known; by
                default any.
        """
        async with self._work() as session:
            await session.flush()
            return await insert_missing_rows(self._scope, session, rows, conflict=conflict)

    async def copy(self, rows: Iterable[T | Mapping[str, Any]]) -> int:
        """Insert very many rows by COPY, all or none; return how many.

        It is the fastest way in, and returns no rows. Types, defaults and constraints are those of
        `insert_many`, but for defaults that are SQL expressions of the model: these must be given.
        On a table of isolated tenants, where PostgreSQL refuses COPY, the rows are copied into a
        temporary table and inserted from there, each judged by the policy.

        Args:
            rows: instances, or mappings by attribute; may be a generator, which is read a piece at
                a time.
        """
        async with self._work() as session:
            await session.flush()
            return await copy_rows(self._scope, session, rows)

    async def upsert_many(
        self,
        rows: Iterable[T | Mapping[str, Any]],
        *,
        conflict: Sequence[str],
        change: Sequence[str] | Mapping[str, Any] | None = None,
        when: Condition | None = None,
    ) -> builtins.list[T]:
        """Insert rows, or change those that are there already; return them all, in order.

        A row that was soft-deleted is there again. A row that gives a ``version`` changes a row of
        that version only.

        >>> rows = [{"number": "1001", "total": Money(5, "EUR")}]
        >>> _ = await orders.insert_many(rows)
        >>> (order,) = await orders.upsert_many(
        ...     [{"number": "1001", "total": Money(6, "EUR")}], conflict=["number"]
        ... )
        >>> str(order.total), order.version
        ('6.00 EUR', 2)

        Args:
            rows: instances, or mappings by attribute; no two with the same key.
            conflict: the columns of a unique constraint or index, by which rows are known.
            change: what to write over in a row that is there; by default all that is given. A
                mapping says with what: ``{"count": Stock.count + excluded(Stock.count)}``.
            when: change only rows for which this holds, such as
                ``Order.revised_at < excluded(Order.revised_at)``. Others are left as they are, and
                out of what is returned.

        Raises:
            ConflictError: a row that is there is another tenant's, or of another version; none
                is changed then. With ``when`` it is left as it is, like others.
        """
        allowed = (
            None
            if when is None
            else and_(*self._scope.conditions([when], {}, include_deleted=True))
        )
        async with self._work() as session:
            await session.flush()
            return await upsert_rows(
                self._scope, session, rows, conflict=conflict, change=change, when=allowed
            )

    async def update_many(
        self, changes: Mapping[str, Any], *given: Condition, **filters: Any
    ) -> builtins.list[T]:
        """Change every row that matches, in one statement; return them as they are then.

        >>> _ = await orders.save(Order(number="1001", total=Money(5, "EUR")))
        >>> (order,) = await orders.update_many({"status": "paid"}, number__in=["1001", "1002"])
        >>> order.status
        'paid'

        Args:
            changes: values by attribute; SQL expressions too: ``{"stock": Article.stock - 1}``.
            *given: conditions; see the class.
            **filters: see `where`. With ``version=3`` only rows of that version are changed.

        Raises:
            TypeError: no condition at all.
        """
        self._scope.choose(given, filters, "change")
        conditions = self._scope.conditions(given, filters, include_deleted=False)
        options = self._scope.related(given, include_deleted=False)
        async with self._work() as session:
            return await update_rows(self._scope, session, changes, conditions, options)

    async def update_each(self, rows: Iterable[T | Mapping[str, Any]]) -> builtins.list[T]:
        """Change rows by their primary key, all or none; return them in order, as they are then.

        Args:
            rows: instances, or mappings by attribute, each with its primary key and what to change.
                With a ``version`` the row must still have it.

        Raises:
            ConflictError: a row was changed by someone else since; ``details["ids"]`` names it.
            NotFoundError: no such row.
        """
        async with self._work() as session:
            await session.flush()
            return await update_each(self._scope, session, rows)

    async def delete_many(self, *given: Condition, hard: bool = False, **filters: Any) -> int:
        """Delete every row that matches, in one statement; return how many.

        Args:
            *given: conditions; see the class.
            hard: destroy where marking is the rule, also what is marked already.
            **filters: see `where`.

        Raises:
            TypeError: no condition at all.
        """
        self._scope.choose(given, filters, "delete")
        conditions = self._scope.conditions(given, filters, include_deleted=hard)
        options = self._scope.related(given, include_deleted=hard)
        async with self._work() as session:
            await session.flush()
            return await delete_rows(self._scope, session, conditions, options, hard=hard)

    async def history_of(
        self,
        id: str | UUID | int | tuple[Any, ...],  # noqa: A002
        *,
        limit: int = DEFAULT_LIMIT,
    ) -> builtins.list[Change]:
        """Return what became of a row, newest first; for models with `HistoryMixin`.

        Args:
            id: its primary key; the row may be gone.
            limit: at most so many changes.

        Raises:
            TypeError: no history is kept of the model.
        """
        _not_negative("limit", limit)
        identity = self._scope.identity(id)
        async with self._work() as session:
            await session.flush()
            return await changes_of(self._scope, session, identity, limit)

    # -- for subclasses ----------------------------------------------------------------------

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

    # -- inside ------------------------------------------------------------------------------

    @asynccontextmanager
    async def _work(self, lock: RowLock | None = None) -> AsyncIterator[AsyncSession]:
        joined = self._own_session or current_session()
        if lock is not None and joined is None:
            raise RuntimeError(
                "a lock ends with its transaction: lock rows inside `async with` of a unit of work"
            )
        with translate_errors(self.model.__name__, table=self.model.__table__):
            if joined is not None:
                yield joined
            else:
                async with self.session_factory() as session:
                    yield session
                    await session.commit()

    def _alone(self) -> Engine | None:
        """Return the engine for a call that can do without a session; None if it cannot."""
        if self._own_session is not None or current_session() is not None:
            return None
        return autocommit_engine_of(self.session_factory)

    def _query(
        self,
        given: Sequence[Condition],
        filters: dict[str, Any],
        *,
        include_deleted: bool,
        load: Sequence[ORMOption],
    ) -> Select[T]:
        conditions = self._scope.conditions(given, filters, include_deleted=include_deleted)
        related = self._scope.related(given, include_deleted=include_deleted)
        query = select(self.model).where(*conditions)
        return query.options(*related, *self._scope.loading(load))

    def _locked(self, query: Select[Any], lock: RowLock | None) -> Select[Any]:
        return query if lock is None else lock.on(query, self.model)

    def _key_is(self, identity: tuple[Any, ...]) -> builtins.list[ColumnElement[bool]]:
        columns = self._scope.mapper.primary_key
        return [column == value for column, value in zip(columns, identity, strict=True)]

    async def _count(
        self,
        session: AsyncSession,
        given: Sequence[Condition],
        filters: dict[str, Any],
        *,
        include_deleted: bool,
    ) -> int:
        conditions = self._scope.conditions(given, filters, include_deleted=include_deleted)
        options = self._scope.related(given, include_deleted=include_deleted)
        query = select(func.count()).select_from(self.model).where(*conditions)
        return await session.scalar(query.options(*options)) or 0

    async def _delete(self, identity: tuple[Any, ...], *, hard: bool) -> None:
        async with self._work() as session:
            row = await session.get(self.model, identity)
            if row is None or self._scope.foreign(row):
                return
            if isinstance(row, SoftDeleteMixin) and not hard:
                if not row.is_deleted:
                    row.is_deleted = True
                    row.deleted_at = datetime.now(UTC)
            else:
                await session.delete(row)
            await session.flush()

    async def _claim_for_tenant(self, instance: T, session: AsyncSession | None = None) -> None:
        """Refuse what would write another tenant's row, the instance or one that it refers to."""
        merchant_id = self._scope.merchant_id
        if merchant_id is None:
            return
        state = inspect(instance)
        related = [one for one, *_ in state.mapper.cascade_iterator("save-update", state)]
        row: Any
        for row in (instance, *related):
            if not isinstance(row, MerchantMixin):
                continue
            if row.merchant_id is None and inspect(row).transient:
                row.merchant_id = merchant_id
            kind: type[Any] = type(row)
            if self._scope.foreign(row):
                raise self._scope.foreign_error(kind)
            identity = tuple(inspect(kind).primary_key_from_instance(row))
            if session is not None and row is not instance and None not in identity:
                self._scope.refuse_foreign(await session.get(kind, identity))

    def _signer(self) -> CursorSigner:
        info: dict[str, Any] = getattr(self.session_factory, "kw", {}).get("info") or {}
        configured: SecretStr | None = info.get("cursor_secret")
        secret = self._cursor_secret or (configured and configured.get_secret_value())
        if not secret:
            raise RuntimeError(
                "cursors are signed: set database.cursor_secret, the same for all replicas, or "
                "give cursor_secret to the Repository"
            )
        return CursorSigner(secret)

    def _not_found(self, id: object) -> NoReturn:  # noqa: A002
        raise NotFoundError(
            f"no {self.model.__name__} {id}", resource=self.model.__name__, resource_id=id
        )


def _not_negative(name: str, value: int | None) -> None:
    if value is not None and value < 0:
        raise ValidationError(f"{name} is {value}: it must be 0 or more", field=name, value=value)


def _fits_a_page(limit: int) -> None:
    if not 1 <= limit <= _MAX_PAGE:
        raise ValidationError(
            f"limit is {limit}: a page has 1 to {_MAX_PAGE} rows", field="limit", value=limit
        )
