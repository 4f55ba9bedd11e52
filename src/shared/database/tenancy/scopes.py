"""Scopes: which tenant a task works for, and so whose rows its transactions may see.

The scope is bound to the task, by the edge or the handler's runner (``tenant_id`` of the context)
or by `tenant_scope`, and told to PostgreSQL with ``set_config(..., true)``: it ends with the
transaction, so neither the pool nor pgbouncer hands it on. Work across tenants names its reason
(`system_scope`) and logs in as another role; the role of the service cannot get there by any
statement. See decisions/0008-tenants.md.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING
from uuid import UUID

from shared.context import Context, bind, current
from shared.errors import DatabaseError, ForbiddenError

if TYPE_CHECKING:
    from collections.abc import Iterator


_logger = logging.getLogger(__name__)

_reason: ContextVar[str | None] = ContextVar("shared_database_system_scope", default=None)


class TenantRequiredError(DatabaseError):
    """A table whose tenants are kept apart was touched by a transaction that works for none.

    Bind the tenant: `tenant_scope(tenant_id)`, or a context with ``tenant_id``; work across tenants
    says so with `system_scope(reason)`.
    """

    code = "TENANT_REQUIRED"
    status = 500  # a mistake of the service's code, not an outage
    retryable: bool = False


class TenantMismatchError(ForbiddenError):
    """Work for one tenant tried to turn into work for another."""

    code = "TENANT_MISMATCH"


@contextmanager
def tenant_scope(tenant_id: UUID | str) -> Iterator[Context]:
    """Work for one tenant until the block ends: what jobs, and handlers of messages, bind.

    >>> with tenant_scope("0192f0c1-2a00-7000-8000-000000000001") as context:
    ...     context.tenant_id
    '0192f0c1-2a00-7000-8000-000000000001'

    Yields:
        The context, whose ``tenant_id`` it is; events published inside carry it.

    Raises:
        TenantMismatchError: the request or message was made for another tenant. Nobody's right to
            one tenant's rows is a right to another's; `system_scope` around it is.
    """
    tenant = canonical(str(tenant_id))
    context = current() or Context.start()
    bound = None if _reason.get() is not None else context.tenant_id
    if bound is not None and canonical(bound) != tenant:
        raise TenantMismatchError(
            "this work is done for another tenant", bound=bound, wanted=tenant
        )
    token = _reason.set(None)
    try:
        with bind(replace(context, tenant_id=tenant)) as inner:
            yield inner
    finally:
        _reason.reset(token)


@contextmanager
def system_scope(reason: str) -> Iterator[None]:
    """Work across tenants until the block ends; the log tells why.

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
    _logger.info("work across tenants", extra={"reason": reason})
    token = _reason.set(reason)
    try:
        yield
    finally:
        _reason.reset(token)


def in_system_scope() -> bool:
    """Whether `system_scope` is open here."""
    return _reason.get() is not None


def has_scope() -> bool:
    """Whether this task works for a tenant, or across them."""
    context = current()
    return _reason.get() is not None or (context is not None and context.tenant_id is not None)


def current_tenant() -> str | None:
    """Return the tenant that this task works for; None without one, and across tenants."""
    context = current()
    return None if context is None or _reason.get() is not None else context.tenant_id


@lru_cache(maxsize=1024)
def canonical(tenant: str) -> str:
    """Return the one spelling of a UUID; anything else stays as it is."""
    try:
        return str(UUID(tenant))
    except ValueError:
        return tenant
