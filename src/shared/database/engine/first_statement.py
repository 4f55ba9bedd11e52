"""The first statement of a transaction, sent in one message with BEGIN: one round trip, not two.

PostgreSQL takes several statements in one message if they have no parameters (manual, 54.2.2.1), so
the values are written into the text. Only those are that need no quoting; with any other value, and
where the transaction has begun, the statement goes its usual way. The session setup that the
library sends before it, such as the tenant, goes along. It is the same statement either way to all
who listen, its error is raised where it would be, and the transaction it failed in is open and has
to be rolled back, as ever.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy.util import await_only

from shared.database.engine.statements import is_internal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import ExecutionContext
    from sqlalchemy.orm import Session

    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection


# Within quotes these are themselves, whatever the settings of the session.
_PLAIN = re.compile(r"[\w.:/@\"-]+", re.ASCII)
_PARAMETER = re.compile(r"\$(\d+)")


@dataclass(slots=True)
class _First:
    """A statement that is to go with BEGIN, and what became of it.

    ``texts``: the session setup and the statement itself, with their values in them.
    """

    statement: str
    texts: list[str] = field(default_factory=list)
    status: str = ""
    error: asyncpg.PostgresError | None = None
    sent: bool = False


_first: ContextVar[_First | None] = ContextVar("shared_database_first_statement", default=None)


class BatchingConnection(_Connection):
    """A connection of asyncpg whose next BEGIN takes along what ``with_begin`` holds."""

    __slots__ = ("with_begin",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.with_begin: _First | None = None

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """Execute, as asyncpg does; this is how its transactions send BEGIN."""
        first = self.with_begin
        if first is None:
            return await super().execute(query, *args, **options)
        self.with_begin = None
        try:
            first.status = await super().execute(f"{query} {'; '.join(first.texts)}", **options)
        except asyncpg.PostgresError as error:
            if not self.is_in_transaction():
                raise
            first.error = error  # of a statement: BEGIN has succeeded
        return "BEGIN"


def execute_first(session: Session, statement: str, *values: str) -> int:
    """Execute a statement that returns no rows; return how many it changed.

    Called where SQLAlchemy may wait (in a greenlet of its own).

    Args:
        session: where; the statement goes with BEGIN if that is still to come.
        statement: with ``$1``, ``$2``, ... for the values.
        values: of text.
    """
    first = _First(statement)
    token = _first.set(first if _with_values(statement, values) is not None else None)
    try:
        result = session.connection().exec_driver_sql(statement, values)
    finally:
        _first.reset(token)
    return int(first.status.rpartition(" ")[2]) if first.sent else result.rowcount


def send_with_begin(
    _cursor: object, statement: str, parameters: Sequence[object], context: ExecutionContext
) -> bool:
    """Hold back session setup, and send it with BEGIN and the statement of `execute_first`.

    A listener to ``do_execute``: True says that there is nothing left to execute.
    """
    first = _first.get()
    if first is None:
        return False
    is_setup = is_internal(context)
    adapter: Any = context.root_connection.connection.dbapi_connection
    driver = adapter.driver_connection
    text = _with_values(statement, parameters)
    if (
        text is None
        or not (is_setup or statement == first.statement)
        or adapter.autocommit
        or not isinstance(driver, BatchingConnection)
        or driver.is_in_transaction()
    ):
        return False
    first.texts.append(text)
    driver.with_begin = first  # the next BEGIN takes them along
    if is_setup:
        return True
    await_only(adapter._start_transaction())  # noqa: SLF001 - nobody else can
    if first.error is not None:
        adapter._handle_exception(first.error)  # noqa: SLF001 - as it would have been raised
    first.sent = bool(first.status)
    return first.sent


def _with_values(statement: str, parameters: Sequence[object]) -> str | None:
    """Return the statement with its values in it; None if one would need quoting."""
    values = [value for value in parameters if isinstance(value, str) and _PLAIN.fullmatch(value)]
    if len(values) < len(parameters):
        return None
    return _PARAMETER.sub(lambda found: f"'{values[int(found[1]) - 1]}'", statement)
