"""A client span for each SQL statement, in the words of OpenTelemetry's conventions, 1.44.0.

https://github.com/open-telemetry/semantic-conventions/blob/v1.44.0/docs/db/database-spans.md and,
beside it, `postgresql.md`.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import event

from shared.context import current
from shared.database.engine.statements import is_internal, summary_of
from shared.tracing import record_span

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Engine
    from sqlalchemy.engine import ExceptionContext, ExecutionContext

    from shared.database.engine.database import Database


_MAX_TEXT = 4096


def trace_statements(database: Database, *, logged: bool = False) -> None:
    """Record a span for each statement that ``database`` runs in a trace from now on.

    Statements outside of any trace, such as the relay's polling, have none; nor have those of
    session setup. Those of standbys, and of work
    across tenants, name the server they went to. Without this call nothing listens, and
    statements cost what they did. A second call is not needed: it would record every statement
    twice.

    Args:
        database: whose engines to listen to.
        logged: whether the spans are written to the log too, rather than exported only.
    """
    database.watch_engines(
        lambda engine, host, port: _trace(
            engine,
            {
                "db.system.name": "postgresql",
                "db.namespace": f"{database.settings.name}|{database.schema}",
                "server.address": host,
                "server.port": port,
            },
            logged=logged,
        )
    )


def _trace(engine: Engine, place: Mapping[str, object], *, logged: bool) -> None:
    @event.listens_for(engine, "before_cursor_execute")
    def started(
        _connection: Connection,
        _cursor: object,
        _statement: str,
        _parameters: object,
        context: ExecutionContext,
        _many: bool,
    ) -> None:
        if not is_internal(context):
            context._glam_span = datetime.now(UTC), time.perf_counter()  # type: ignore[attr-defined] # noqa: SLF001

    @event.listens_for(engine, "after_cursor_execute")
    def finished(
        _connection: Connection,
        _cursor: object,
        statement: str,
        parameters: object,
        context: ExecutionContext,
        many: bool,
    ) -> None:
        record(context, statement, parameters if many else None, None)

    @event.listens_for(engine, "handle_error")
    def failed(failure: ExceptionContext) -> None:
        if failure.execution_context is not None and failure.statement is not None:
            record(failure.execution_context, failure.statement, None, failure.original_exception)

    def record(
        execution: ExecutionContext,
        statement: str,
        batch: object,
        error: BaseException | None,
    ) -> None:
        context = current()
        began = execution.__dict__.pop("_glam_span", None)
        if context is None or began is None or not (logged or context.trace.sampled):
            return
        started, clock = began
        size = len(batch) if isinstance(batch, list | tuple) else 1
        summary = f"BATCH {summary_of(statement)}" if size > 1 else summary_of(statement)
        attributes: dict[str, object] = {
            **place,
            "db.query.summary": summary,
            "db.query.text": statement[:_MAX_TEXT],
        }
        if size > 1:
            attributes["db.operation.batch.size"] = size
        if error is not None:
            attributes["db.response.status_code"] = getattr(error, "sqlstate", None)
        record_span(
            name=summary,
            kind="client",
            context=context.trace.child(),
            parent_span_id=context.trace.span_id,
            started=started,
            duration_seconds=time.perf_counter() - clock,
            # The message of a failure may hold values (PostgreSQL's DETAIL); its class does not.
            error=None if error is None else _class_of(error),
            logged=logged,
            **attributes,
        )


def _class_of(error: BaseException) -> str:
    """Name the driver's error rather than the adapter's around it."""
    cause = error.__cause__ or error
    return type(cause).__qualname__
