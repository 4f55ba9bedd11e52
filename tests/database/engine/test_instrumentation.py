"""Spans of statements."""

import logging
from collections.abc import Iterator

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import IntegrityError

from shared.context import Context, TraceContext, bind
from shared.database import Database, system_scope, tenant_scope
from shared.database.engine.instrumentation import trace_statements
from shared.tracing import FinishedSpan, export_to
from tests.database.models import Coupon
from tests.database.orders import SHOP


@pytest.fixture
def spans() -> Iterator[list[FinishedSpan]]:
    taken: list[FinishedSpan] = []

    class Taker:
        def export(self, span: FinishedSpan) -> None:
            taken.append(span)

    export_to(Taker())
    yield taken
    export_to(None)


async def test_a_statement_is_a_client_span_under_the_work_that_runs_it(
    database: Database, spans: list[FinishedSpan]
) -> None:
    trace_statements(database)
    with bind(Context.start()) as context:
        async with database.transaction() as session:
            await session.execute(text("SELECT id FROM coupons WHERE id = :id"), {"id": 7})
    (span,) = spans
    assert (span.name, span.kind) == ("SELECT coupons", "client")
    assert span.context.trace_id == context.trace.trace_id
    assert span.parent_span_id == context.trace.span_id
    assert span.context.span_id != context.trace.span_id
    assert span.error is None
    assert span.attributes == {
        "db.system.name": "postgresql",
        "db.namespace": f"{database.settings.name}|shop-1",
        "db.query.summary": "SELECT coupons",
        "db.query.text": "SELECT id FROM coupons WHERE id = $1",
        "server.address": database.settings.host,
        "server.port": database.settings.port,
    }


async def test_many_rows_at_once_are_one_span_with_their_number(
    database: Database, spans: list[FinishedSpan]
) -> None:
    trace_statements(database)
    rows = [{"id": number, "code": "SECRET"} for number in range(3)]
    with bind(Context.start()):
        async with database.transaction() as session:
            await session.execute(insert(Coupon.__table__), rows)  # type: ignore[arg-type]
    (span,) = spans
    assert span.name == "BATCH INSERT coupons"
    assert span.attributes["db.operation.batch.size"] == 3
    assert "SECRET" not in str(span)


async def test_a_failed_statement_has_its_state_and_class_and_none_of_its_values(
    database: Database, spans: list[FinishedSpan]
) -> None:
    trace_statements(database)
    statement = text("INSERT INTO coupons (id, code) VALUES (98765, :code)")
    with bind(Context.start()):
        async with database.transaction() as session:
            await session.execute(statement, {"code": "SECRET"})
            with pytest.raises(IntegrityError):
                await session.execute(statement, {"code": "SECRET"})
            await session.rollback()
    good, bad = spans
    assert good.error is None
    assert bad.error == "UniqueViolationError"
    assert bad.attributes["db.response.status_code"] == "23505"
    assert "SECRET" not in str(bad)
    assert "already exists" not in str(bad)


async def test_a_statement_outside_of_any_trace_has_no_span(
    database: Database, spans: list[FinishedSpan]
) -> None:
    trace_statements(database)
    await database.ping()
    assert spans == []


async def test_statements_fill_the_log_only_if_asked_to(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="shared.tracing")
    trace_statements(database)
    with bind(Context.start()):
        await database.ping()
    assert caplog.messages == []


async def test_asked_to_they_are_logged_whether_sampled_or_not(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="shared.tracing")
    trace_statements(database, logged=True)
    unsampled = TraceContext.parse(f"00-{'a1' * 16}-{'b2' * 8}-00")
    with bind(Context.start(trace=unsampled)):
        await database.ping()
    assert caplog.messages == ["span SELECT"]


async def test_work_across_tenants_is_traced_too(
    database: Database, spans: list[FinishedSpan]
) -> None:
    trace_statements(database)
    with bind(Context.start()), system_scope("test"):
        async with database.transaction() as session:
            await session.execute(text("SELECT 1"))
        async with database.transaction() as session:
            await session.execute(text("SELECT 2"))
    assert [span.attributes["db.query.text"] for span in spans] == ["SELECT 1", "SELECT 2"]


async def test_what_the_library_tells_postgresql_has_no_span(
    database: Database, spans: list[FinishedSpan]
) -> None:
    trace_statements(database)
    with tenant_scope(SHOP):
        async with database.transaction() as session:
            assert await session.scalar(text("SELECT current_setting('glam.merchant_id')")) == str(
                SHOP
            )
    (span,) = spans
    assert "set_config" not in str(span.attributes["db.query.text"])
