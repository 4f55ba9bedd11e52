"""What became of a row: a table beside the model's, filled by a trigger."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic_core import to_json
from sqlalchemy import Connection, Table, event, text

from shared.context import current
from shared.database.engine.statements import INTERNAL, quoted_text
from shared.errors.details import json_safe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Mapper

    from shared.database.repository.scope import Scope


# A row that an UPDATE leaves as it was did not change.
_FUNCTION = """\
CREATE OR REPLACE FUNCTION {schema}keep_history() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
  after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
  key jsonb := '{{}}';
  name text;
BEGIN
  IF before IS NOT DISTINCT FROM after THEN
    RETURN NULL;
  END IF;
  FOREACH name IN ARRAY TG_ARGV LOOP
    key := key || jsonb_build_object(name, coalesce(before, after) -> name);
  END LOOP;
  EXECUTE format(
    'INSERT INTO %I.%I (operation, key, merchant_id, before, after, changed_by, trace_id) '
    'VALUES ($1, $2, $3, $4, $5, $6, $7)', TG_TABLE_SCHEMA, TG_TABLE_NAME || '_history')
  USING lower(TG_OP), key, (coalesce(after, before) ->> 'merchant_id')::uuid, before, after,
    nullif(current_setting('glam.user_id', true), ''),
    nullif(current_setting('glam.trace_id', true), '');
  RETURN NULL;
END $$"""

_TABLE = """\
CREATE TABLE {history} (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  operation text NOT NULL,
  key jsonb NOT NULL,
  merchant_id uuid,
  before jsonb,
  after jsonb,
  changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  changed_by text,
  trace_id text
)"""

_INDEX = "CREATE INDEX ON {history} (key, id)"

_TRIGGER = """\
CREATE TRIGGER keep_history AFTER INSERT OR UPDATE OR DELETE ON {table}
FOR EACH ROW EXECUTE FUNCTION {schema}keep_history({key})"""

_TELL = text(
    "SELECT set_config('glam.user_id', :user_id, true),"
    " set_config('glam.trace_id', :trace_id, true)"
).execution_options(**INTERNAL)


_TOLD = "glam.author"  # in `Connection.info`


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one row."""

    operation: Literal["insert", "update", "delete"]
    before: dict[str, Any] | None
    """The row before, by column, in the types of JSON; None of an insert."""
    after: dict[str, Any] | None
    """The row afterwards; None of a delete."""
    changed_at: datetime
    changed_by: str | None
    """``user_id`` of the context in which it was changed."""
    trace_id: str | None


class HistoryMixin:
    """Every change of a row is kept, by whomever: ``<table>_history``, filled by a trigger.

    It holds each insert, update and delete with the row before and after, when, by which user and
    in which trace: those of the context bound at a transaction's first change of such a model, by
    the session or by a `Repository`. What is only written by hand, as SQL, is kept without them;
    TRUNCATE is not kept. ``create_all`` makes the table and the trigger; a migration calls
    `create_history`. `Repository.history_of` reads it.

    >>> class Account(Base, UUIDv7Mixin, HistoryMixin):
    ...     __tablename__ = "accounts"
    ...     balance: Mapped[int]
    >>> async with database.engine.begin() as connection:
    ...     await connection.run_sync(Account.metadata.create_all)
    >>> accounts = Repository(Account, database.session_factory)
    >>> account = await accounts.save(Account(balance=1))
    >>> _ = await accounts.update_many({"balance": 2}, id=account.id)
    >>> for change in await accounts.history_of(account.id):
    ...     print(change.operation, change.after["balance"])
    update 2
    insert 1
    """


@event.listens_for(HistoryMixin, "before_insert", propagate=True)
@event.listens_for(HistoryMixin, "before_update", propagate=True)
@event.listens_for(HistoryMixin, "before_delete", propagate=True)
def _before_change(_mapper: Mapper[Any], connection: Connection, _row: object) -> None:
    tell_author(connection)


@event.listens_for(HistoryMixin, "instrument_class", propagate=True)
def _mark_table(mapper: Mapper[Any], _class: type[Any]) -> None:
    if isinstance(mapper.local_table, Table):
        mapper.local_table.info["history"] = True


@event.listens_for(Table, "after_create")
def _add_history(table: Table, connection: Connection, **_: object) -> None:
    if table.info.get("history") and connection.dialect.name == "postgresql":
        key = [column.name for column in table.primary_key]
        preparer = connection.dialect.identifier_preparer
        for statement in _statements(preparer, table.schema, table.name, key):
            connection.exec_driver_sql(statement)


def create_history(op: Any, table: str, *, key: Sequence[str] = ("id",)) -> None:
    """Let a migration keep the history of ``table`` from now on, in ``<table>_history``.

    Of a table of tenants, `isolate_merchants` comes after it, and isolates both.

    Args:
        op: ``alembic.op``.
        table: its name, in the service's schema.
        key: the columns of its primary key.
    """
    preparer = op.get_bind().dialect.identifier_preparer
    for statement in _statements(preparer, None, table, key):
        op.execute(statement)


def drop_history(op: Any, table: str) -> None:
    """Let a migration end the history of ``table``, and drop what was kept."""
    quote = op.get_bind().dialect.identifier_preparer.quote
    op.execute(f"DROP TRIGGER keep_history ON {quote(table)}")
    op.execute(f"DROP TABLE {quote(f'{table}_history')}")


async def changes_of(
    scope: Scope[Any], session: AsyncSession, identity: Sequence[Any], limit: int
) -> list[Change]:
    """Return the changes of one row, newest first; those alone that the scope may see.

    Raises:
        TypeError: no history is kept of the model.
    """
    if not issubclass(scope.model, HistoryMixin):
        raise TypeError(f"{scope.model.__name__} has no HistoryMixin")
    table = scope.mapper.local_table
    assert isinstance(table, Table)  # noqa: S101 - what has a trigger is a table
    key = {
        column.name: json_safe(value)
        for column, value in zip(scope.mapper.primary_key, identity, strict=True)
    }
    connection = await session.connection()
    quote = connection.dialect.identifier_preparer.quote
    schema = f"{quote(table.schema)}." if table.schema else ""
    query = (  # the name is the model's, quoted
        "SELECT operation, before, after, changed_at, changed_by, trace_id"  # noqa: S608
        f" FROM {schema}{quote(f'{table.name}_history')} WHERE key = CAST(:key AS jsonb)"
    )
    if scope.merchant_id is not None:
        # Neither what it was before it came to this tenant, nor after it left.
        query += (
            " AND coalesce(before ->> 'merchant_id', :merchant) = :merchant"
            " AND coalesce(after ->> 'merchant_id', :merchant) = :merchant"
        )
    rows = await session.execute(
        text(f"{query} ORDER BY id DESC LIMIT :limit"),
        {"key": to_json(key).decode(), "limit": limit}
        | ({} if scope.merchant_id is None else {"merchant": str(scope.merchant_id)}),
    )
    return [Change(*row) for row in rows]


def tell_author(connection: Connection) -> None:
    """Tell PostgreSQL who changes rows in this transaction, once.

    In a savepoint it is told anew, since what is told there ends with a rollback to it.
    """
    context = current()
    if context is None or connection.dialect.name != "postgresql":
        return
    told = (connection.get_transaction(), connection.get_nested_transaction())
    if connection.info.get(_TOLD) != told:
        author = {"user_id": context.user_id or "", "trace_id": context.trace.trace_id}
        connection.execute(_TELL, author)
        connection.info[_TOLD] = told


def _statements(
    preparer: Any, schema_name: str | None, table: str, key: Sequence[str]
) -> list[str]:
    schema = f"{preparer.quote_schema(schema_name)}." if schema_name else ""
    names = {
        "schema": schema,
        "table": schema + preparer.quote(table),
        "history": schema + preparer.quote(f"{table}_history"),
        "key": ", ".join(map(quoted_text, key)),
    }
    return [part.format(**names) for part in (_FUNCTION, _TABLE, _INDEX, _TRIGGER)]
