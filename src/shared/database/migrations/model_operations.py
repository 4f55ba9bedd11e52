"""What the mixins of a model need in the database besides columns: written, and looked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from alembic.autogenerate import render, renderers
from alembic.operations import ops
from sqlalchemy import TypeDecorator, text

from shared.database.base import Base

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from alembic.autogenerate.api import AutogenContext
    from alembic.migration import MigrationContext
    from sqlalchemy import Connection, MetaData


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


def render_type(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Write a type of the models as what the column is: classes move, revisions stay."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return render._repr_type(item.impl_instance, context)  # noqa: SLF001 - as Alembic itself
    return False


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
            for operation in script.upgrade_ops.ops:
                if isinstance(operation, ops.CreateTableOp):
                    operation.info = {}  # marks for `create_all`: the calls say it here
            calls = [
                _Call(f"operations.{name}(op, {arguments})", [_IMPORT])
                for table in created
                for name, arguments in _needed(metadata, table).items()
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
    "create_history": "its history",
}


def _needed(metadata: MetaData, name: str) -> dict[str, str]:
    """Return the operations that a table needs, and their arguments as a revision writes them."""
    table = metadata.tables.get(name)
    if table is None:
        return {}
    needed = {}
    if any(column.info.get("touched") for column in table.columns):
        needed["create_updated_at_trigger"] = repr(name)
    if table.info.get("isolated"):
        needed["isolate_merchants"] = repr(name)
    if table.info.get("history"):
        key = [column.name for column in table.primary_key]
        needed["create_history"] = f"{name!r}, key={key!r}"
    return needed


_TRIGGERS = text(
    "SELECT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
    "WHERE c.relnamespace = to_regnamespace(:schema) AND t.tgname = 'touch_updated_at' "
    "AND t.tgenabled <> 'D'"
)
_HISTORIES = text(str(_TRIGGERS).replace("touch_updated_at", "keep_history"))
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
        "create_history": connection.scalars(_HISTORIES, quoted).all(),
    }
    return [
        f"table {table} lacks {_NEEDS[name]}: operations.{name}(op, {arguments})"
        for table in sorted(tables)
        for name, arguments in _needed(metadata, table).items()
        if table not in here[name]
    ]
