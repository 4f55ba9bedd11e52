"""Many rows in few statements.

Every function here works in a savepoint of the session it is given, so that a unit of work which
catches the error of one can go on, and never commits a part of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Table,
    UniqueConstraint,
    and_,
    delete,
    func,
    inspect,
    literal,
    select,
    text,
    tuple_,
    update,
    values,
)
from sqlalchemy import column as new_column
from sqlalchemy import table as new_table
from sqlalchemy.dialects.postgresql import insert

from shared.database.base import Base, SoftDeleteMixin, VersionedMixin
from shared.database.models.history import HistoryMixin, tell_author
from shared.database.repository.filters import attribute_of
from shared.errors import ConflictError, NotFoundError, ValidationError

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Callable,
        Iterable,
        Iterator,
        Sequence,
    )

    from sqlalchemy import Column
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
    from sqlalchemy.orm import InstrumentedAttribute, Mapper
    from sqlalchemy.sql.base import ExecutableOption

    from shared.database.repository.scope import Scope


T = TypeVar("T", bound=Base)
V = TypeVar("V")

Row: TypeAlias = "Base | Mapping[str, Any]"
Values: TypeAlias = "dict[str, Any]"

_COPIED_AT_ONCE = 20_000
_PARAMETERS = 30_000  # of one statement; the protocol counts them in 16 bits


@asynccontextmanager
async def _savepoint(scope: Scope[Any], session: AsyncSession) -> AsyncIterator[None]:
    async with session.begin_nested():
        if issubclass(scope.model, HistoryMixin):
            await (await session.connection()).run_sync(tell_author)
        yield


# -- adding ----------------------------------------------------------------------------------


async def insert_rows(scope: Scope[T], session: AsyncSession, rows: Iterable[Row]) -> list[T]:
    """Insert; return the rows in the order given, as the database made them."""
    given = [_values_of(scope, row) for row in rows]
    _begin_versions(scope.model, given)
    inserted: list[T | None] = [None] * len(given)
    async with _savepoint(scope, session):
        for places in _alike(given).values():
            found = await session.scalars(
                insert(scope.model).returning(scope.model, sort_by_parameter_order=True),
                [given[place] for place in places],
            )
            for place, row in zip(places, found, strict=True):
                inserted[place] = row
    return [row for row in inserted if row is not None]


async def insert_missing_rows(
    scope: Scope[T], session: AsyncSession, rows: Iterable[Row], *, conflict: Sequence[str] | None
) -> list[T]:
    """Insert the rows that nothing stands in the way of; return those."""
    model = scope.model
    keys = [name for given in conflict or () for name in _names(model, given)]
    statement = insert(model)
    if keys:
        statement = statement.on_conflict_do_nothing(
            index_elements=[_column(model, key) for key in keys], index_where=_arbiter(model, keys)
        )
    else:
        statement = statement.on_conflict_do_nothing()
    given = [_values_of(scope, row) for row in rows]
    _begin_versions(model, given)
    inserted: list[T] = []
    async with _savepoint(scope, session):
        for (names, _), places in _alike(given).items():
            for chunk in _chunks(places, len(names)):
                inserted += await session.scalars(
                    statement.returning(model), [given[place] for place in chunk]
                )
    return inserted


async def copy_rows(scope: Scope[T], session: AsyncSession, rows: Iterable[Row]) -> int:
    """Insert by COPY, in chunks; return how many."""
    count = 0
    remaining = iter(rows)
    async with _savepoint(scope, session):  # begins the driver's transaction too, which COPY joins
        connection = await session.connection()
        dialect, table = connection.dialect, _table(scope.model)
        target = dialect.identifier_preparer.format_table(table)
        # PostgreSQL refuses COPY FROM where it had to judge each row: manual, COPY, Notes.
        judged = await connection.scalar(
            text("SELECT row_security_active(CAST(:name AS text))"), {"name": target}
        )
        while chunk := [_values_of(scope, row) for row in islice(remaining, _COPIED_AT_ONCE)]:
            _begin_versions(scope.model, chunk)
            _add_defaults(scope.model, chunk)
            for (names, _), places in _alike(chunk).items():
                columns = [_column(scope.model, name) for name in names]
                bind = [_bound_by(column, dialect) for column in columns]
                records = [
                    tuple(
                        process(chunk[place][name])
                        for name, process in zip(names, bind, strict=True)
                    )
                    for place in places
                ]
                if judged:
                    await _copy_by_way_of_another(connection, table, columns, records)
                else:
                    await _copy(connection, table.name, table.schema, columns, records)
            count += len(chunk)
    return count


async def _copy_by_way_of_another(
    connection: AsyncConnection,
    table: Table,
    columns: Sequence[Column[Any]],
    records: Sequence[tuple[Any, ...]],
) -> None:
    """Copy into a temporary table, and from there row by row past the policies of the model's."""
    preparer = connection.dialect.identifier_preparer
    target = preparer.format_table(table)
    names = ", ".join(preparer.format_column(column) for column in columns)
    temporary = f"glam_copy_{secrets.token_hex(8)}"
    await connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE {temporary} ON COMMIT DROP AS"  # noqa: S608 - the model's names
        f" SELECT {names} FROM {target} WITH NO DATA"
    )
    await _copy(connection, temporary, None, columns, records)
    await connection.exec_driver_sql(
        f"INSERT INTO {target} ({names}) SELECT {names} FROM {temporary}"  # noqa: S608
    )
    # Long transactions copy often.
    await connection.exec_driver_sql(f"DROP TABLE {temporary}")


async def _copy(
    connection: AsyncConnection,
    name: str,
    schema: str | None,
    columns: Sequence[Column[Any]],
    records: Sequence[tuple[Any, ...]],
) -> None:
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    try:
        await driver.copy_records_to_table(
            name,
            schema_name=schema,
            columns=[column.name for column in columns],
            records=records,
        )
    except (OverflowError, TypeError, ValueError) as error:
        # The driver's, of a value it cannot write; it sends nothing then.
        raise ValidationError("a value does not fit its column") from error


def excluded(attribute: InstrumentedAttribute[V]) -> ColumnElement[V]:
    """Return the value that the row of an upsert gives for a column, and could not be inserted.

    For ``change`` and ``when`` of `Repository.upsert_many`:
    ``when=Order.revised_at < excluded(Order.revised_at)``. PostgreSQL calls it so too.
    """
    column = attribute.property.columns[0]
    given: ColumnElement[V] = new_table("excluded", new_column(column.name, column.type)).c[
        column.name
    ]
    return given


async def upsert_rows(
    scope: Scope[T],
    session: AsyncSession,
    rows: Iterable[Row],
    *,
    conflict: Sequence[str],
    change: Sequence[str] | Mapping[str, Any] | None,
    when: ColumnElement[bool] | None = None,
) -> list[T]:
    """Insert, or change the row that is there; return the rows in the order given."""
    model = scope.model
    keys = [name for given in conflict for name in _names(model, given)]
    arbiter = _arbiter(model, keys)
    given = [_values_of(scope, row) for row in rows]
    order = _by_key(given, keys)
    # Of one version at a time: SQLAlchemy counts the versions of what it inserts itself.
    alike = _alike(given, by="version" if issubclass(model, VersionedMixin) else None)
    _begin_versions(model, given)
    found: dict[tuple[Any, ...], T] = {}
    async with _savepoint(scope, session):
        for (names, version), places in alike.items():
            statement = insert(model)
            changes, allowed = _on_conflict(scope, statement.excluded, names, keys, change, version)
            if when is not None:
                allowed = when if allowed is None else and_(allowed, when)
            statement = statement.on_conflict_do_update(
                index_elements=[_column(model, key) for key in keys],
                index_where=arbiter,
                set_=changes,
                where=allowed,
            )
            for chunk in _chunks(places, len(names)):
                result = await session.scalars(
                    statement.returning(model),
                    [given[place] for place in chunk],
                    execution_options={"populate_existing": True},
                )
                found |= {tuple(getattr(row, key) for key in keys): row for row in result}
        # A row that stands in the way and may not be changed is not returned.
        if len(found) < len(order) and when is None:
            raise ConflictError(
                f"{len(order) - len(found)} of the rows exist already in "
                f"{_table(model).name}, and are not to be changed by this: another tenant's, or "
                "of another version",
                conflicting_resource=_table(model).name,
                columns=keys,
            )
    # PostgreSQL may see keys as equal that Python does not (citext), so the order is a courtesy.
    return [found.pop(key) for key in order if key in found] + list(found.values())


def _on_conflict(
    scope: Scope[Any],
    given: Any,
    names: Sequence[str],
    keys: Sequence[str],
    change: Sequence[str] | Mapping[str, Any] | None,
    expected: int | None,
) -> tuple[dict[Any, Any], ColumnElement[bool] | None]:
    """Return what an upsert sets in a row that is there, and of which rows it may."""
    model = scope.model
    primary = {scope.mapper.get_property_by_column(c).key for c in scope.mapper.primary_key}
    if change is None:
        change = [name for name in names if name not in {*keys, *primary, "version"}]
    changes: dict[Any, Any] = (
        {
            _column(model, name): value
            for name, value in _values_of(scope, change, changing=True).items()
        }
        if isinstance(change, Mapping)
        else {column: given[column.key] for name in change for column in _columns(model, name)}
    )
    conditions = []
    if scope.merchant_id is not None:
        conditions.append(_column(model, "merchant_id") == scope.merchant_id)
    if issubclass(model, VersionedMixin):
        version = _column(model, "version")
        changes[version] = version + 1
        if expected is not None:
            conditions.append(version == expected)
    if issubclass(model, SoftDeleteMixin):
        changes.setdefault(_column(model, "is_deleted"), False)
        changes.setdefault(_column(model, "deleted_at"), None)
    for column in _table(model).columns:
        if column.onupdate is not None and column not in changes:
            changes[column] = column.onupdate.arg  # type: ignore[attr-defined]
    # DO NOTHING would not return the row that is there.
    if not changes:
        changes[_column(model, keys[0])] = given[_column(model, keys[0]).key]
    return changes, and_(*conditions) if conditions else None


def _arbiter(model: type[Base], keys: Sequence[str]) -> ColumnElement[bool] | None:
    """Return the condition of the unique index on these columns, if it has one.

    Raises:
        ValidationError: the model declares nothing unique on them.
    """
    wanted = {_column(model, key).name for key in keys}
    table = _table(model)
    unique = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    for constraint in (table.primary_key, *unique):
        if {column.name for column in constraint.columns} == wanted:
            return None
    for index in table.indexes:
        if index.unique and {column.name for column in index.columns} == wanted:
            condition: ColumnElement[bool] | None = index.dialect_kwargs.get("postgresql_where")
            return condition
    raise ValidationError(
        f"{model.__name__} declares no unique constraint or index on {', '.join(keys)}",
        field="conflict",
        value=list(keys),
    )


# -- changing --------------------------------------------------------------------------------


async def update_rows(
    scope: Scope[T],
    session: AsyncSession,
    changes: Mapping[str, Any],
    conditions: Sequence[ColumnElement[bool]],
    options: Sequence[ExecutableOption],
) -> list[T]:
    """Change every row that meets the conditions; return them as they are then."""
    model = scope.model
    written = _values_of(scope, changes, changing=True)
    if not written:
        raise ValidationError("nothing to change was given", field="values")
    if issubclass(model, VersionedMixin):
        written["version"] = model.version + 1
    statement = (
        update(model)
        .where(*conditions)
        .values(written)
        .options(*options)
        .returning(model)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    async with _savepoint(scope, session):
        return list(await session.scalars(statement))


async def update_each(scope: Scope[T], session: AsyncSession, rows: Iterable[Row]) -> list[T]:
    """Change each row by its primary key, all or none; return them in the order given."""
    keys = [scope.mapper.get_property_by_column(c).key for c in scope.mapper.primary_key]
    given = [_values_of(scope, row, identified=True) for row in rows]
    order = _by_key(given, keys)
    found: dict[tuple[Any, ...], T] = {}
    async with _savepoint(scope, session):
        for (names, _), places in _alike(given).items():
            for chunk in _chunks(places, len(names)):
                statement = _update_from(scope, names, keys, [given[place] for place in chunk])
                result = await session.scalars(statement)
                found |= {tuple(getattr(row, key) for key in keys): row for row in result}
        missing = [key[0] if len(key) == 1 else key for key in order if key not in found]
        if missing:
            raise await _why_missing(scope, session, keys, missing)
    return [found[key] for key in order]


def _update_from(
    scope: Scope[Any], names: Sequence[str], keys: Sequence[str], rows: Sequence[Values]
) -> Any:
    model = scope.model
    columns = [_column(model, name) for name in names]
    new = values(
        *(new_column(column.name, column.type) for column in columns), name="new_rows"
    ).data(
        [
            # NULL has to be told of which type it is.
            tuple(
                literal(row[name], column.type) if row[name] is None else row[name]
                for name, column in zip(names, columns, strict=True)
            )
            for row in rows
        ]
    )
    changes: dict[Any, ColumnElement[Any]] = {
        column: new.c[column.name]
        for name, column in zip(names, columns, strict=True)
        if name not in keys and name != "version"
    }
    conditions = [_column(model, key) == new.c[_column(model, key).name] for key in keys]
    conditions += scope.own(include_deleted=False)
    if issubclass(model, VersionedMixin):
        version = _column(model, "version")
        changes[version] = version + 1
        if "version" in names:
            conditions.append(version == new.c.version)
    return (
        update(model)
        .where(*conditions)
        .values(changes)
        .returning(model)
        .execution_options(synchronize_session=False, populate_existing=True)
    )


async def _why_missing(
    scope: Scope[Any], session: AsyncSession, keys: Sequence[str], missing: list[Any]
) -> ConflictError | NotFoundError:
    model = scope.model
    key = tuple_(*(getattr(model, key) for key in keys))
    wanted = [one if isinstance(one, tuple) else (one,) for one in missing]
    query = select(func.count()).select_from(model).where(key.in_(wanted[:_PARAMETERS]))
    there = await session.scalar(query.where(*scope.own(include_deleted=False)))
    table = _table(model).name
    if there:
        return ConflictError(
            f"{there} rows of {table} were changed by someone else",
            conflicting_resource=table,
            ids=missing[:100],
        )
    return NotFoundError(
        f"no such {model.__name__}", resource=model.__name__, resource_id=missing[:100]
    )


async def delete_rows(
    scope: Scope[T],
    session: AsyncSession,
    conditions: Sequence[ColumnElement[bool]],
    options: Sequence[ExecutableOption],
    *,
    hard: bool,
) -> int:
    """Delete every row that meets the conditions, or mark it; return how many."""
    model = scope.model
    statement: Any
    if issubclass(model, SoftDeleteMixin) and not hard:
        marks: dict[str, Any] = {"is_deleted": True, "deleted_at": datetime.now(UTC)}
        if issubclass(model, VersionedMixin):
            marks["version"] = model.version + 1
        statement = update(model).values(marks)
    else:
        statement = delete(model)
    statement = statement.where(*conditions).options(*options)
    async with _savepoint(scope, session):
        result = await session.execute(
            statement, execution_options={"synchronize_session": "fetch"}
        )
    assert isinstance(result, CursorResult)  # noqa: S101 - what DML returns, which the types omit
    return result.rowcount


# -- rows ------------------------------------------------------------------------------------


def _values_of(
    scope: Scope[Any], row: Row, *, changing: bool = False, identified: bool = False
) -> Values:
    """Return the columns that a row gives, by attribute; of the scope's tenant, if it has one.

    Raises:
        ValidationError: an unknown column, a primary key missing where one is needed, a row of
            another tenant.
    """
    mapper = scope.mapper
    if isinstance(row, Base):
        if not isinstance(row, scope.model):
            raise TypeError(f"a {type(row).__name__} is not a {scope.model.__name__}")
        state = inspect(row)
        given = {key: state.dict[key] for key in mapper.column_attrs.keys() if key in state.dict}  # noqa: SIM118
        given |= _composed(scope.model, state.dict)
    elif row.keys() <= _plain_names(mapper):
        given = dict(row)
    else:
        for name in row:
            attribute_of(scope.model, name)
        given = {name: value for name, value in row.items() if name not in mapper.composites}
        given |= _composed(scope.model, row)
    _own_tenant(scope, given, fill=not changing and not identified)
    if identified:
        for column in mapper.primary_key:
            key = mapper.get_property_by_column(column).key
            if given.get(key) is None:
                raise ValidationError(f"a row to change needs its {key}", field=key)
    return given


@cache
def _plain_names(mapper: Mapper[Any]) -> frozenset[str]:
    return frozenset(mapper.column_attrs.keys())


def _own_tenant(scope: Scope[Any], given: Values, *, fill: bool) -> None:
    if scope.merchant_id is None:
        return
    if given.get("merchant_id") is None and (fill or "merchant_id" not in given):
        if fill:
            given["merchant_id"] = scope.merchant_id
    elif given["merchant_id"] != scope.merchant_id:
        raise scope.foreign_error(scope.model)


def _composed(model: type[Base], row: Mapping[str, Any]) -> Values:
    """Return the columns behind the composite attributes that the row gives."""
    columns: Values = {}
    for name, composite in inspect(model).composites.items():
        if name not in row:
            continue
        keys = [prop.key for prop in composite.props]
        value = row[name]
        parts = (
            (None,) * len(keys)
            if value is None
            else composite._composite_values_from_instance(value)  # noqa: SLF001
        )
        columns |= dict(zip(keys, parts, strict=True))
    return columns


def _alike(
    rows: Sequence[Values], *, by: str | None = None
) -> dict[tuple[tuple[str, ...], Any], list[int]]:
    """Return the places of the rows that give the same columns (and value), by these."""
    places: dict[tuple[tuple[str, ...], Any], list[int]] = {}
    for place, row in enumerate(rows):
        value = None if by is None else row.get(by)
        places.setdefault((tuple(sorted(row)), value), []).append(place)
    return places


def _by_key(rows: Sequence[Values], keys: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the key of each row.

    Raises:
        ValidationError: two rows have the same.
    """
    order: dict[tuple[Any, ...], int] = {}
    for place, row in enumerate(rows):
        key = tuple(row.get(name) for name in keys)
        if key in order:
            raise ValidationError(
                f"rows {order[key]} and {place} have the same {', '.join(keys)}",
                field=keys[0],
            )
        order[key] = place
    return list(order)


def _begin_versions(model: type[Base], rows: Sequence[Values]) -> None:
    if issubclass(model, VersionedMixin):
        for row in rows:
            row.setdefault("version", 1)


def _add_defaults(model: type[Base], rows: Sequence[Values]) -> None:
    """Add what SQLAlchemy would when it compiles an INSERT; the database adds its own."""
    for prop in inspect(model).column_attrs:
        default: Any = getattr(prop.columns[0], "default", None)
        if default is None:
            continue
        for row in rows:
            if prop.key in row:
                continue
            if default.is_scalar:
                row[prop.key] = default.arg
            elif default.is_callable:
                row[prop.key] = default.arg(None)
            elif not default.is_sequence:
                raise ValidationError(
                    f"COPY cannot work out the default of {prop.key}: give it in each row",
                    field=prop.key,
                )


def _chunks(places: Sequence[int], width: int) -> Iterator[Sequence[int]]:
    size = max(_PARAMETERS // max(width, 1), 1)
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _bound_by(column: Column[Any], dialect: Any) -> Callable[[Any], Any]:
    process: Callable[[Any], Any] | None = column.type.dialect_impl(dialect).bind_processor(dialect)
    return process or (lambda value: value)


def _column(model: type[Any], name: str) -> Column[Any]:
    column: Column[Any] = inspect(model).column_attrs[name].columns[0]
    return column


def _names(model: type[Any], name: str) -> list[str]:
    """Return the attributes of the columns behind a name: more than one for a composite."""
    attribute_of(model, name)
    composite = inspect(model).composites.get(name)
    return [name] if composite is None else [prop.key for prop in composite.props]


def _columns(model: type[Any], name: str) -> list[Column[Any]]:
    return [_column(model, one) for one in _names(model, name)]


def _table(model: type[Any]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)  # noqa: S101 - a model of a join or a view writes nothing
    return table
