"""What the mixins of a model need in the database besides columns: written, and looked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alembic.autogenerate import renderers
from alembic.operations import ops
from sqlalchemy import text

from shared.database.base import Base, MerchantMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from alembic.autogenerate.api import AutogenContext
    from alembic.migration import MigrationContext
    from sqlalchemy import Connection, MetaData, Table

__all__ = ["FirstRevision", "missing_operations", "models_of", "write_operations"]


@dataclass(frozen=True, slots=True)
class FirstRevision:
    """What the first revision of a service calls besides creating its models' tables."""

    imports: tuple[str, ...] = ()
    upgrade: tuple[str, ...] = ()
    downgrade: tuple[str, ...] = ()


class _Call(ops.MigrateOperation):
    """A line of a revision: the call of an operation."""

    def __init__(self, line: str, imported: Iterable[str]) -> None:
        self.line = line
        self.imported = tuple(imported)

    def to_diff_tuple(self) -> tuple[str, str]:
        return "call", self.line


@renderers.dispatch_for(_Call)
def _render(context: AutogenContext, call: _Call) -> str:
    context.imports.update(call.imported)
    return call.line


def models_of(metadata: MetaData, package: str) -> frozenset[str]:
    """Return the tables of a service: all of ``metadata`` but those of the services beside it.

    Several services loaded into one process fill one ``Base.metadata``. Beside ``services.credit``
    stand the other packages in ``services``.
    """
    beside, _, _ = package.rpartition(".")
    others = {
        mapper.local_table.name  # type: ignore[attr-defined]
        for mapper in Base.registry.mappers
        if beside
        and mapper.class_.__module__.startswith(f"{beside}.")
        and not f"{mapper.class_.__module__}.".startswith(f"{package}.")
    }
    return frozenset(metadata.tables) - others


def write_operations(
    metadata: MetaData, first: FirstRevision
) -> Callable[[MigrationContext, Any, list[Any]], None]:
    """Make the hook of Alembic that adds to new tables what their models' mixins need.

    Args:
        metadata: of the models.
        first: added when the revision is the first one.
    """

    def write(_context: MigrationContext, _revision: object, scripts: list[Any]) -> None:
        for script in scripts:
            created = [
                operation.table_name
                for operation in script.upgrade_ops.ops
                if isinstance(operation, ops.CreateTableOp)
            ]
            calls = [
                _Call(f"operations.{name}(op, {table!r})", [_IMPORT])
                for table in created
                for name in _needed(metadata, table)
            ]
            script.upgrade_ops.ops.extend(calls)
            if script.head == "base" or _context.get_current_heads() == ():
                begin = [_Call(line, first.imports) for line in first.upgrade]
                end = [_Call(line, first.imports) for line in first.downgrade]
                script.upgrade_ops.ops[:0] = begin
                script.downgrade_ops.ops.extend(end)

    return write


_IMPORT = "from shared.database import operations"
_NEEDS = {
    "create_updated_at_trigger": "the trigger of updated_at",
    "isolate_merchants": "its policy",
}


def _needed(metadata: MetaData, name: str) -> list[str]:
    table = metadata.tables.get(name)
    if table is None:
        return []
    needed = []
    if any(column.info.get("touched") for column in table.columns):
        needed.append("create_updated_at_trigger")
    if _of_merchants(table) and table.info.get("isolated", True):
        needed.append("isolate_merchants")
    return needed


def _of_merchants(table: Table) -> bool:
    return any(
        mapper.local_table is table and issubclass(mapper.class_, MerchantMixin)
        for mapper in Base.registry.mappers
    )


_TRIGGERS = text(
    "SELECT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
    "WHERE c.relnamespace = to_regnamespace(:schema) AND t.tgname = 'touch_updated_at' "
    "AND t.tgenabled <> 'D'"
)
_POLICIES = text(
    "SELECT c.relname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid "
    "WHERE c.relnamespace = to_regnamespace(:schema) AND c.relrowsecurity "
    "AND c.relforcerowsecurity"
)


def missing_operations(
    connection: Connection, schema: str, metadata: MetaData, tables: Collection[str]
) -> list[str]:
    """Return a sentence for each trigger and policy that a model needs and its table lacks."""
    quoted = {"schema": connection.dialect.identifier_preparer.quote(schema)}
    here: dict[str, Sequence[str]] = {
        "create_updated_at_trigger": connection.scalars(_TRIGGERS, quoted).all(),
        "isolate_merchants": connection.scalars(_POLICIES, quoted).all(),
    }
    return [
        f"table {table} lacks {_NEEDS[name]}: operations.{name}(op, {table!r})"
        for table in sorted(tables)
        for name in _needed(metadata, table)
        if table not in here[name]
    ]
