"""The autocommit path of `Repository`: one statement that is a transaction of its own.

A row that is read by its key or inserted outside of a unit of work needs no session: one statement
commits by itself in PostgreSQL, so BEGIN and COMMIT, two of three round trips, and the bookkeeping
of a session are spared. What comes out is what the session would have handed out: an instance that
is detached.

The path is taken only where nobody could tell the difference; `AutocommitPath.of` says where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import Column, Engine, Table, bindparam, insert, inspect, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_dict, instance_state
from sqlalchemy.util import greenlet_spawn

from shared.database.base import Base, SoftDeleteMixin, VersionedMixin
from shared.database.models.history import HistoryMixin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import async_sessionmaker
    from sqlalchemy.orm import Mapper


T = TypeVar("T", bound=Base)

_by_model: dict[type[Base], AutocommitPath[Any] | None] = {}
_autocommitting: WeakKeyDictionary[Engine, Engine] = WeakKeyDictionary()


class AutocommitPath(Generic[T]):
    """The statements of one model, made once."""

    def __init__(self, mapper: Mapper[T], table: Table) -> None:
        self._manager = mapper.class_manager
        self._columns: list[tuple[str, Column[Any]]] = [
            (prop.key, prop.columns[0])  # type: ignore[misc]
            for prop in mapper.column_attrs
        ]
        self._keys = [key for key, _ in self._columns]
        self._key_of = {key: column.key for key, column in self._columns}
        self._primary = [mapper.get_property_by_column(c).key for c in mapper.primary_key]
        columns = [column for _, column in self._columns]
        self._versioned = issubclass(mapper.class_, VersionedMixin)
        self._marked = issubclass(mapper.class_, SoftDeleteMixin)
        conditions = [
            column == bindparam(f"key_{n}", type_=column.type)
            for n, column in enumerate(mapper.primary_key)
        ]
        self._get = select(*columns).where(*conditions)
        self._insert = insert(table).returning(*columns)

    @staticmethod
    def of(model: type[T]) -> AutocommitPath[T] | None:
        """Return the path for this model; None if it has to go through a session.

        It has when loading or inserting a row means more than its columns: relationships, which a
        session cascades to or loads, inheritance, columns that are deferred or computed, several
        tables, a history that asks who did it, or somebody who listens to what becomes of its
        instances.
        """
        if model not in _by_model:
            mapper = inspect(model)
            _by_model[model] = (
                AutocommitPath(mapper, mapper.local_table)
                if isinstance(mapper.local_table, Table) and _is_plain(mapper)
                else None
            )
        return _by_model[model]

    async def find(
        self, engine: Engine, identity: Sequence[Any], *, include_deleted: bool
    ) -> T | None:
        """Return the row with this primary key, detached; None when there is none."""
        keys = {f"key_{n}": value for n, value in enumerate(identity)}
        row = await greenlet_spawn(_first, engine, self._get, keys)
        if row is None:
            return None
        instance = self._manager.new_instance()
        self._fill(instance, row)
        if self._marked and not include_deleted and instance_dict(instance)["is_deleted"]:
            return None
        return instance

    async def insert(self, engine: Engine, instance: T) -> T:
        """Insert the instance, which is detached then and holds the row as it is."""
        given = instance_dict(instance)
        row = {self._key_of[key]: given[key] for key in self._keys if key in given}
        # None for a key is none given; a session leaves it to the default as well.
        for key in self._primary:
            if row.get(self._key_of[key], self) is None:
                del row[self._key_of[key]]
        if self._versioned and given.get("version") is None:
            row[self._key_of["version"]] = 1
        self._fill(instance, await greenlet_spawn(_first, engine, self._insert, row))
        return instance

    def _fill(self, instance: T, row: Any) -> None:
        state, values = instance_state(instance), instance_dict(instance)
        values.update(zip(self._keys, row, strict=True))
        state.key = self._manager.mapper._identity_key_from_state(state)  # noqa: SLF001
        state._commit_all(values)  # noqa: SLF001


def autocommit_engine_of(session_factory: async_sessionmaker[AsyncSession]) -> Engine | None:
    """Return the engine whose statements commit by themselves; None to go through a session.

    None, too, when the factory makes sessions of another kind, when somebody listens to what its
    sessions do, and when `Database.autocommit_engine` says so.
    """
    settings = getattr(session_factory, "kw", {})
    engine = settings.get("bind")
    kind = settings.get("sync_session_class", Session)
    of_database = (settings.get("info") or {}).get("autocommit_engine")
    if (
        not isinstance(engine, AsyncEngine)
        or not issubclass(AsyncSession, session_factory.class_)
        or not (kind is Session or of_database is not None)
        or any(settings.get(name) for name in ("binds", "twophase", "replicas"))
        or _has_listeners(kind)
    ):
        return None
    if of_database is not None:
        found: Engine | None = of_database()
        return found
    sync_engine = engine.sync_engine
    if sync_engine not in _autocommitting:
        _autocommitting[sync_engine] = sync_engine.execution_options(isolation_level="AUTOCOMMIT")
    return _autocommitting[sync_engine]


def _has_listeners(kind: type[Session]) -> bool:
    events: Any = kind.dispatch
    return any(
        listened._clslevel.get(cls)  # noqa: SLF001 - a class tells of its listeners nowhere else
        for listened in (events.before_flush, events.after_flush, events.do_orm_execute)
        for cls in kind.__mro__
    )


def _first(engine: Engine, statement: Any, parameters: dict[str, Any]) -> Any:
    with engine.connect() as connection:
        return connection.execute(statement, parameters).first()


def _is_plain(mapper: Mapper[Any]) -> bool:
    listens = mapper.dispatch
    instances = mapper.class_manager.dispatch
    return (
        not mapper.relationships
        and mapper.polymorphic_on is None
        and not issubclass(mapper.class_, HistoryMixin)
        and mapper.inherits is None
        and not mapper.composites
        and all(
            len(prop.columns) == 1 and isinstance(prop.columns[0], Column) and not prop.deferred
            for prop in mapper.column_attrs
        )
        and not any((listens.before_insert, listens.after_insert))
        and not any((instances.load, instances.refresh, instances.expire))
    )
