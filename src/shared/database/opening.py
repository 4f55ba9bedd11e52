"""The statement a transaction opens with, sent in one message with BEGIN: one journey, not two.

PostgreSQL takes several statements in one message if they have no parameters (manual, 54.2.2.1), so
the values are written into the text. Only those are that need no quoting; with any other value, and
where the transaction has begun, the statement goes its usual way. It is the same statement either
way to all who listen, its error is raised where it would be, and the transaction it failed in is
open and has to be rolled back, as ever.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.util import await_only

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExecutionContext

    _Connection = asyncpg.Connection[asyncpg.Record]
else:
    _Connection = asyncpg.Connection

__all__ = ["OpenableConnection", "count_changed", "open_with_statements"]

_OPTION = "glam_opening"
_PLAIN = re.compile(r"[\w.:/@-]+", re.ASCII)


@dataclass(slots=True)
class _Opening:
    """A statement with its values in it, and what became of it."""

    text: str
    status: str | None = None
    error: asyncpg.PostgresError | None = None


class OpenableConnection(_Connection):
    """A connection of asyncpg, whose next BEGIN can be given a statement to take along."""

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
            opening.status = await super().execute(f"{query} {opening.text}", **options)
        except asyncpg.PostgresError as error:
            if not self.is_in_transaction():
                raise
            opening.error = error  # of the statement: BEGIN has succeeded
        return "BEGIN"


def count_changed(connection: Connection, statement: str, *values: str) -> int:
    """Execute a statement that returns no rows; return how many it changed.

    Args:
        connection: where; the statement goes with its BEGIN if that is still to come.
        statement: with ``$1``, ``$2``, ... for the values, nine at most.
        values: of text.
    """
    text = None
    if all(_PLAIN.fullmatch(value) for value in values):
        text = statement
        for number, value in enumerate(values, start=1):
            text = text.replace(f"${number}", f"'{value}'")
    opening = _Opening(text) if text is not None else None
    result = connection.exec_driver_sql(statement, values, execution_options={_OPTION: opening})
    if opening is None or opening.status is None:
        return result.rowcount
    return int(opening.status.rpartition(" ")[2])


def open_with_statements(engine: Engine) -> None:
    """Let `count_changed` open the engine's transactions with its statement."""

    @event.listens_for(engine, "do_execute")
    def execute(
        _cursor: object, _statement: str, _parameters: object, context: ExecutionContext
    ) -> bool:
        opening: _Opening | None = context.execution_options.get(_OPTION)
        if opening is None:
            return False
        adapter: Any = context.root_connection.connection.dbapi_connection
        driver = adapter.driver_connection
        if (
            adapter.autocommit
            or not isinstance(driver, OpenableConnection)
            or driver.is_in_transaction()
        ):
            return False
        driver.opening = opening
        try:
            await_only(adapter._start_transaction())  # noqa: SLF001 - nobody else can
        finally:
            driver.opening = None
        if opening.error is not None:
            adapter._handle_exception(opening.error)  # noqa: SLF001 - as it would have been raised
        return opening.status is not None
