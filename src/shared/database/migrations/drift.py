"""Differences of models and schema, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from shared.database.migrations.model_operations import missing_operations

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from sqlalchemy import Connection, MetaData


def differences(
    connection: Connection, schema: str, metadata: MetaData, tables: Collection[str]
) -> list[str]:
    """Return what the models say of these tables and the schema does not, a line each."""
    context = MigrationContext.configure(
        connection,
        opts={"include_object": only_tables(tables), "version_table_schema": schema},
    )
    found: list[tuple[Any, ...]] = []
    for difference in compare_metadata(context, metadata):
        # Alembic keeps those of one column in a list of their own.
        found += difference if isinstance(difference, list) else [difference]
    absent = {table.name for kind, table, *_ in found if kind == "add_table"}
    lacking = missing_operations(connection, schema, metadata, {*tables} - absent)
    return [_told(difference) for difference in found] + lacking


def only_tables(tables: Collection[str]) -> Callable[..., bool]:
    """Tell Alembic to leave tables alone that no model of the service names."""

    def include(item: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
        del item, reflected, other
        return not (kind == "table" and name not in tables)

    return include


def _told(difference: tuple[Any, ...]) -> str:
    """Say a difference of Alembic's in words: what the models have, then what the schema has."""
    kind, *rest = difference
    if kind in {"add_table", "remove_table"}:
        return f"table {rest[0].name} is missing"
    if kind == "add_column":
        return f"column {rest[1]}.{rest[2].name} is missing"
    if kind == "remove_column":
        return f"column {rest[1]}.{rest[2].name} is in the schema and in no model"
    if kind.startswith("modify_"):
        _schema, table, column, _existing, here, wanted = rest
        what = kind.removeprefix("modify_")
        if what == "nullable":
            here, wanted = ("NULL" if allowed else "NOT NULL" for allowed in (here, wanted))
        return f"column {table}.{column}: {what} is {here!s} and {wanted!s} in the model"
    if kind.startswith(("add_", "remove_")):
        verb, _, what = kind.partition("_")
        item = rest[0]
        table = getattr(item, "table", None)
        columns = ", ".join(column.name for column in getattr(item, "columns", ()))
        name = getattr(item, "name", None)
        missing = "is missing" if verb == "add" else "is in the schema and in no model"
        what = {"fk": "foreign key", "constraint": "constraint"}.get(what, what)
        return f"{what} {name} of {getattr(table, 'name', None)} ({columns}) {missing}"
    return str(difference)
