"""The statement a transaction opens with, sent in one message with BEGIN: one journey, not two.

PostgreSQL takes several statements in one message if they have no parameters (manual, 54.2.2.1), so
the values are written into the text. Only those are that need no quoting; with any other value, and
where the transaction has begun, the statement goes its usual way. What the library tells PostgreSQL
before it, such as the merchant, goes along. It is the same statement either way to all who listen,
its error is raised where it would be, and the transaction it failed in is open and has to be rolled
back, as ever.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.util import await_only

from shared.database.engine.untracked import is_aside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExecutionContext
    from sqlalchemy.orm import Session

    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

__all__ = ["OpenableConnection", "count_changed", "open_with_statements"]

# Within quotes these are themselves, whatever the settings of the session.
_PLAIN = re.compile(r"[\w.:/@\"-]+", re.ASCII)
_PARAMETER = re.compile(r"\$(\d+)")


@dataclass(slots=True)
class _Opening:
    """A statement that is to open a transaction, and what became of it.

    ``texts``: it, and what goes before it, with their values in them.
    """

    statement: str
    texts: list[str] = field(default_factory=list)
    status: str = ""
    error: asyncpg.PostgresError | None = None
    sent: bool = False


_opening: ContextVar[_Opening | None] = ContextVar("shared_database_opening", default=None)


class OpenableConnection(_Connection):
    """A connection of asyncpg, whose next BEGIN can be given statements to take along."""

    __slots__ = ("opening",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.opening: _Opening | None = None

    async def execute(self, query: str, *args: Any, **options: Any) -> str:
        """Execute, as asyncpg does; this is how its transactions send BEGIN."""
        opening = self.opening
        if opening is None:
            return await super().execute(query, *args, **options)
        self.opening = None
        try:
            opening.status = await super().execute(f"{query} {'; '.join(opening.texts)}", **options)
        except asyncpg.PostgresError as error:
            if not self.is_in_transaction():
                raise
            opening.error = error  # of a statement: BEGIN has succeeded
        return "BEGIN"


def count_changed(session: Session, statement: str, *values: str) -> int:
    """Execute a statement that returns no rows; return how many it changed.

    Args:
        session: where; the statement goes with BEGIN if that is still to come.
        statement: with ``$1``, ``$2``, ... for the values.
        values: of text.
    """
    opening = _Opening(statement)
    token = _opening.set(opening if _written(statement, values) is not None else None)
    try:
        result = session.connection().exec_driver_sql(statement, values)
    finally:
        _opening.reset(token)
    return int(opening.status.rpartition(" ")[2]) if opening.sent else result.rowcount


def open_with_statements(engine: Engine) -> None:
    """Let `count_changed` open the engine's transactions with its statement."""

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # What an earlier user of the connection did not come to send is not for this one.
        if not (connection.closed or connection.invalidated):
            driver = connection.connection.driver_connection
            if isinstance(driver, OpenableConnection):
                driver.opening = None

    @event.listens_for(engine, "do_execute")
    def execute(
        _cursor: object, statement: str, parameters: Sequence[object], context: ExecutionContext
    ) -> bool:
        opening = _opening.get()
        if opening is None:
            return False
        goes_before = is_aside(context)
        adapter: Any = context.root_connection.connection.dbapi_connection
        driver = adapter.driver_connection
        text = _written(statement, parameters)
        if (
            text is None
            or not (goes_before or statement == opening.statement)
            or adapter.autocommit
            or not isinstance(driver, OpenableConnection)
            or driver.is_in_transaction()
        ):
            return False
        opening.texts.append(text)
        driver.opening = opening  # whoever sends BEGIN now takes them along
        if goes_before:
            return True
        await_only(adapter._start_transaction())  # noqa: SLF001 - nobody else can
        if opening.error is not None:
            adapter._handle_exception(opening.error)  # noqa: SLF001 - as it would have been raised
        opening.sent = bool(opening.status)
        return opening.sent


def _written(statement: str, parameters: Sequence[object]) -> str | None:
    """Return the statement with its values in it; None if one would need quoting."""
    values = [value for value in parameters if isinstance(value, str) and _PLAIN.fullmatch(value)]
    if len(values) < len(parameters):
        return None
    return _PARAMETER.sub(lambda found: f"'{values[int(found[1]) - 1]}'", statement)
