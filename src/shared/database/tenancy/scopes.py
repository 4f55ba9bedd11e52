"""Tenants: whose rows a transaction may see, and PostgreSQL's row-level security that sees to it.

The scope is bound to the task, by the edge or the handler's runner (``tenant_id`` of the context)
or by `tenant_scope`, and told to PostgreSQL with ``set_config(..., true)``: it ends with the
transaction, so neither the pool nor pgbouncer hands it on. Work across merchants names its reason
(`system_scope`) and logs in as another role; the role of the service cannot get there by any
statement. See decisions/0008-tenants.md.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import event, text

from shared.context import Context, bind, current
from shared.database.engine.connection_info import info_of
from shared.database.engine.untracked import ASIDE
from shared.errors import DatabaseError, ForbiddenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, Engine

__all__ = [
    "NO_TENANT",
    "TenantMismatchError",
    "TenantRequiredError",
    "expose_merchants",
    "has_scope",
    "in_system_scope",
    "isolate_merchants",
    "system_scope",
    "tell_tenant",
    "tell_tenants",
    "tenant_scope",
    "without_isolation",
]

_logger = logging.getLogger(__name__)

_TELL = text("SELECT set_config('glam.merchant_id', :merchant, true)").execution_options(**ASIDE)
_TOLD = "glam.tenant"  # in the notes of a connection
_SETTINGS_TOLD = "glam.settings"
_reason: ContextVar[str | None] = ContextVar("shared_database_system_scope", default=None)


class TenantRequiredError(DatabaseError):
    """A table of merchants was touched by a transaction that works for none.

    Bind the merchant: `tenant_scope(merchant_id)`, or a context with ``tenant_id``; work across
    merchants says so with `system_scope(reason)`.
    """

    code = "TENANT_REQUIRED"
    status = 500  # a mistake of the service's code, not an outage
    retryable: bool = False


class TenantMismatchError(ForbiddenError):
    """Work for one merchant tried to turn into work for another."""

    code = "TENANT_MISMATCH"


@contextmanager
def tenant_scope(merchant_id: UUID | str) -> Iterator[Context]:
    """Work for one merchant until the block ends: what jobs, and handlers of messages, bind.

    Yields:
        The context, whose ``tenant_id`` it is; events published inside carry it.

    Raises:
        TenantMismatchError: the request or message was made for another merchant. Nobody's right
            to one merchant's rows is a right to another's; `system_scope` around it is.
    """
    tenant = _canonical(str(merchant_id))
    context = current() or Context.start()
    bound = None if _reason.get() is not None else context.tenant_id
    if bound is not None and _canonical(bound) != tenant:
        raise TenantMismatchError(
            "this work is done for another merchant", bound=bound, wanted=tenant
        )
    token = _reason.set(None)
    try:
        with bind(replace(context, tenant_id=tenant)) as inner:
            yield inner
    finally:
        _reason.reset(token)


@contextmanager
def system_scope(reason: str) -> Iterator[None]:
    """Work across merchants until the block ends; the log tells why.

    Transactions that begin inside log in as ``database.system_user``, a role with BYPASSRLS. One
    that began outside stays what it was, and refuses to be used in here.

    Args:
        reason: for the log, such as ``"nightly totals"``.

    Raises:
        ValueError: no reason given.
        ConfigError: on first use of the database, when ``database.system_user`` is not set.
    """
    if not reason.strip():
        raise ValueError("system_scope needs a reason: system_scope('nightly totals')")
    _logger.info("work across merchants", extra={"reason": reason})
    token = _reason.set(reason)
    try:
        yield
    finally:
        _reason.reset(token)


def in_system_scope() -> bool:
    """Whether `system_scope` is open here."""
    return _reason.get() is not None


def has_scope() -> bool:
    """Whether this task works for a merchant, or across them."""
    context = current()
    return in_system_scope() or (context is not None and context.tenant_id is not None)


@dataclass(slots=True)
class _Told:
    tenant: str
    sure: bool = True
    """False after a savepoint was rolled back: PostgreSQL may have gone back to what it was."""


def tell_tenants(engine: Engine, *, always: Mapping[str, str] | None = None) -> None:
    """Tell PostgreSQL, before the first statement of a merchant's transaction, whose it is.

    That holds for every statement of the engine: of sessions, of Core and written by hand. A
    transaction works for one merchant; one that began without may still find its own.

    Args:
        engine: whose statements.
        always: settings that each transaction is told besides: `search_path` and the timeouts,
            where a pooler lets no session keep them.
    """
    if always:
        _tell_always(engine, always)
    event.listen(engine, "begin", _forget)
    event.listen(engine, "rollback_savepoint", _doubt)
    event.listen(engine, "before_cursor_execute", _before)


def tell_tenant(connection: Connection) -> None:
    """Tell PostgreSQL the merchant of this task now, if there is one and it does not know.

    Raises:
        TenantMismatchError: the transaction works for another merchant.
    """
    told: _Told | None = info_of(connection).get(_TOLD)
    context = current()
    tenant = None if context is None or _reason.get() is not None else context.tenant_id
    if told is None:
        if tenant is None:
            return
        tenant = _canonical(tenant)
    else:
        if tenant is not None and _canonical(tenant) != told.tenant:
            raise TenantMismatchError(
                "this transaction works for another merchant: open a unit of work for each",
                bound=told.tenant,
                wanted=tenant,
            )
        if told.sure:
            return
        tenant = told.tenant
    info_of(connection)[_TOLD] = _Told(tenant)  # set first: the statement below comes here again
    try:
        connection.execute(_TELL, {"merchant": tenant})
    except BaseException:
        info_of(connection).pop(_TOLD, None)
        raise


def _tell_always(engine: Engine, settings: Mapping[str, str]) -> None:
    names = list(settings)
    calls = (f"set_config('{name}', :{name}, true)" for name in names)
    statement = text("SELECT " + ", ".join(calls)).execution_options(**ASIDE)

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        info_of(connection).pop(_SETTINGS_TOLD, None)

    @event.listens_for(engine, "before_cursor_execute")
    def before(connection: Connection, *_: object) -> None:
        if not info_of(connection).get(_SETTINGS_TOLD):
            info_of(connection)[_SETTINGS_TOLD] = True
            connection.execute(statement, dict(settings))

    # A savepoint is not the first statement, so they are told before it and outlive its rollback.
    @event.listens_for(engine, "savepoint")
    def before_savepoint(connection: Connection, _name: str) -> None:
        before(connection)


def _before(connection: Connection, _cursor: object, statement: str, *_: object) -> None:
    # Told before it, the merchant would be undone by it, and a failed transaction hears nothing.
    if not statement.startswith("ROLLBACK TO "):
        tell_tenant(connection)


def _forget(connection: Connection) -> None:
    info_of(connection).pop(_TOLD, None)


def _doubt(connection: Connection, *_: object) -> None:
    told: _Told | None = info_of(connection).get(_TOLD)
    if told is not None:
        told.sure = False


@lru_cache(maxsize=1024)
def _canonical(tenant: str) -> str:
    """One spelling for each UUID; what is none stays as it is."""
    try:
        return str(UUID(tenant))
    except ValueError:
        return tenant


NO_TENANT = "GL001"
"""The SQLSTATE that `glam_merchant()` raises; classes from I to Z are free for such use."""

# In a subquery the function is called once for each query and not for each row. The first half,
# which knows no column, the planner makes a condition on the whole query, so that it fails where
# there is no row to judge too.
_FUNCTION = f"""\
CREATE OR REPLACE FUNCTION glam_merchant() RETURNS uuid
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
  merchant text := pg_catalog.current_setting('glam.merchant_id', true);
BEGIN
  IF merchant IS NULL OR merchant OPERATOR(pg_catalog.=) '' THEN
    RAISE EXCEPTION 'this transaction works for no merchant'
      USING ERRCODE = '{NO_TENANT}', HINT = 'bind one: tenant_scope(merchant_id)';
  ELSIF merchant OPERATOR(pg_catalog.!~) '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN
    RAISE EXCEPTION 'the tenant % is no merchant id, which is a UUID', merchant
      USING ERRCODE = '{NO_TENANT}';
  END IF;
  RETURN merchant;
END $$"""
_ME = "CAST((SELECT glam_merchant()) AS text)"
_MINE = "glam_merchant() IS NOT NULL AND {column} = (SELECT glam_merchant())"


def isolate_merchants(op: Any, table: str, *, column: str = "merchant_id") -> None:
    """Let a migration give each merchant its own view of ``table``.

    From then on a transaction sees and writes the rows of the merchant it works for, whatever its
    statements forget to say; one that works for none fails with `TenantRequiredError`. Neither
    does the table's owner escape. Superusers and roles with BYPASSRLS do: services must not log in
    as one. A second call, in a later revision, renews the policy. The table's history, if it has
    one, is isolated with it.

    Args:
        op: ``alembic.op``.
        table: its name, in the service's schema.
        column: the merchant's id, a UUID.
    """
    quote = op.get_bind().dialect.identifier_preparer.quote
    op.execute(_FUNCTION)
    for statement in _isolation(quote(table), _MINE.format(column=quote(column))):
        op.execute(statement)
    # What it was before it came to this merchant, or after it left, is another's as well.
    was = " AND ".join(
        f"coalesce({row} ->> {_literal(column)}, {_ME}) = {_ME}" for row in ("before", "after")
    )
    name = quote(f"{table}_history")
    _of_history(op, name, _isolation(name, f"glam_merchant() IS NOT NULL AND {was}"))


def expose_merchants(op: Any, table: str) -> None:
    """Undo `isolate_merchants`, for the way back of a revision."""
    quote = op.get_bind().dialect.identifier_preparer.quote
    name, history = quote(table), quote(f"{table}_history")
    for statement in _exposure(name):
        op.execute(statement)
    _of_history(op, history, _exposure(history))


@contextmanager
def without_isolation(op: Any, table: str) -> Iterator[None]:
    """Let a migration, which works for no merchant, change the rows of all: a backfill.

    The table's owner is let through until the block ends. The table is locked until the
    revision commits, so nobody else gets through meanwhile.
    """
    quote = op.get_bind().dialect.identifier_preparer.quote
    name, history = quote(table), quote(f"{table}_history")
    op.execute(f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")
    _of_history(op, history, [f"ALTER TABLE {history} NO FORCE ROW LEVEL SECURITY"])
    yield
    op.execute(f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")
    _of_history(
        op, history, [f"ALTER TABLE {history} FORCE ROW LEVEL SECURITY"], where="relrowsecurity"
    )


def _isolation(name: str, mine: str) -> list[str]:
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS merchant ON {name}",
        f"CREATE POLICY merchant ON {name} USING ({mine}) WITH CHECK ({mine})",
    ]


def _exposure(name: str) -> list[str]:
    return [
        f"DROP POLICY IF EXISTS merchant ON {name}",
        f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} DISABLE ROW LEVEL SECURITY",
    ]


def _of_history(op: Any, name: str, statements: list[str], *, where: str = "true") -> None:
    """Execute these if there is a table of this name: in SQL, since a script cannot look."""
    op.execute(
        "DO $glam$ BEGIN IF EXISTS (SELECT FROM pg_catalog.pg_class"
        f" WHERE oid = to_regclass({_literal(name)}) AND {where}) THEN "
        + "; ".join(statements)
        + "; END IF; END $glam$"
    )


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
