"""The spans of what was published, as `glam trace` finds them in the log."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.config import LoggingSettings
from shared.context import Context
from shared.delivery.relay.pending import Pending, record_published
from shared.dev.trace_tree import SpanRecord, read_spans
from shared.logging import configure_logging
from shared.messaging import PubAck
from shared.tracing import FinishedSpan, export_to

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

_BEGAN = datetime(2026, 11, 23, 12, tzinfo=UTC)
Published = list[tuple[Pending, PubAck, datetime]]


def published(count: int) -> Published:
    """Some from a trace that is sampled, some from one that is not, some from none."""
    rows: Published = []
    for n in range(count):
        context = Context.start(correlation_id=f"order-{n}")
        headers = {"X-Correlation-ID": f"order-{n}", "Glam-Tenant": f"shop-{n}"}
        if n % 3:
            headers["traceparent"] = f"{context.trace.traceparent[:-2]}0{n % 2}"
        row = Pending(
            n, f"event-{n}", f"evt.credit.n{n}", None, f"id-{n}", headers, b"", _BEGAN, n % 2, 0, 0
        )
        ended = _BEGAN + timedelta(milliseconds=1.5 * n)
        rows.append((row, PubAck("CREDIT", n + 1, duplicate=n % 5 == 0), ended))
    return rows


def logged(folder: Path, name: str, turns: list[Published]) -> tuple[str, list[SpanRecord]]:
    """Record the turns as a service does; return what was written and the spans found in it."""
    file = folder / name
    configure_logging(
        LoggingSettings(format="json", file=file, sample_keep=1), service="credit", environment="t"
    )
    for turn in turns:
        record_published(turn, service="credit")
    for handler in logging.getLogger().handlers:
        handler.flush()
    return file.read_text(), read_spans([file])


def test_listed_spans_are_found_as_if_each_had_its_own_line(tmp_path: Path) -> None:
    rows = published(70)
    listing, listed = logged(tmp_path, "listed.log", [rows])
    lines, single = logged(tmp_path, "single.log", [[row] for row in rows])
    assert sorted(listed, key=str) == sorted(single, key=str)
    assert len(single) == lines.count("\n") == 70
    assert listing.count("\n") == 3
    assert max(len(line) for line in listing.splitlines()) < 16 * 1024
    assert '"correlation_id":"order-69"' in listing
    assert '"tenant_id":"shop-69"' in listing


def test_secrets_are_hidden_in_a_list_too(tmp_path: Path) -> None:
    rows = published(2)
    rows[0][0].headers["X-Correlation-ID"] = "nats://me:hunter2@host"
    rows[1][0].event_id = "Bearer abcdef123456"
    listing, _ = logged(tmp_path, "listed.log", [rows])
    assert "hunter2" not in listing
    assert "abcdef123456" not in listing


class Taker:
    """An exporter that keeps."""

    def __init__(self) -> None:
        self.spans: list[FinishedSpan] = []

    def export(self, span: FinishedSpan) -> None:
        self.spans.append(span)


def test_listed_spans_are_exported_where_their_trace_is_sampled(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "shared.tracing")
    taker = Taker()
    export_to(taker)
    try:
        record_published(published(6), service="credit")
    finally:
        export_to(None)
    assert [span.name for span in taker.spans] == [f"publish evt.credit.n{n}" for n in (0, 1, 3, 5)]
    (record,) = caplog.records
    assert record.getMessage() == "span publish evt.credit.n0 and 5 more"
