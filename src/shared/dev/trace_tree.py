"""A trace as a tree, drawn from the log files of the services it went through.

Every span is one JSON line of the logger ``shared.tracing`` (see `shared.tracing.record_span`), or
one of those that a line lists, so the logs are all that is needed, and a trace can be drawn after
its services are gone.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A finished span as a log line tells it."""

    name: str
    kind: str
    service: str
    trace_id: str
    span_id: str
    parent_span_id: str | None
    started: datetime
    duration_ms: float
    error: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> datetime:
        """When it ended."""
        return self.started + timedelta(milliseconds=self.duration_ms)


def read_spans(paths: Iterable[Path]) -> list[SpanRecord]:
    """Read the spans of log files, in the order in which they began.

    Lines that are not spans are passed over, so is one that a killed process left unfinished. A
    span that several files hold is read once.
    """
    spans: dict[tuple[str, str], SpanRecord] = {}
    for path in paths:
        with path.open("rb") as lines:
            for line in lines:
                # Most lines are not spans; parsing them all would take ten times as long.
                if b'"span_id"' in line:
                    spans |= {(span.trace_id, span.span_id): span for span in _spans(line)}
    return sorted(spans.values(), key=lambda span: span.started)


def render_trace(spans: Collection[SpanRecord]) -> Table:
    """Draw spans of one trace: each under the one that caused it, siblings as they began.

    A span whose parent is not among them stands at the root: its caller is outside the platform,
    or died before it could write its own span down. Times count from the start of the first.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("span", overflow="fold")  # the one to give way on a narrow terminal
    table.add_column("service", no_wrap=True)
    table.add_column("at", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    begin = min((span.started for span in spans), default=None)
    for guide, span in _walk(spans):
        name = Text.assemble((guide, "dim"), span.name)
        if span.error is not None:
            name.append(f"  {span.error}", "red")
        at = (span.started - (begin or span.started)) / timedelta(milliseconds=1)
        table.add_row(
            name, Text(span.service, "cyan"), f"{at:,.1f} ms", f"{span.duration_ms:,.1f} ms"
        )
    return table


def _walk(spans: Collection[SpanRecord]) -> Iterator[tuple[str, SpanRecord]]:
    known = {span.span_id for span in spans}
    children: defaultdict[str | None, list[SpanRecord]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.started):
        children[span.parent_span_id if span.parent_span_id in known else None].append(span)

    def below(parent: str | None, indent: str) -> Iterator[tuple[str, SpanRecord]]:
        for span in (siblings := children[parent]):
            last = span is siblings[-1]
            if parent is None:
                yield "", span
                yield from below(span.span_id, "")
            else:
                yield f"{indent}{'└─ ' if last else '├─ '}", span
                yield from below(span.span_id, f"{indent}{'   ' if last else '│  '}")

    return below(None, "")


def _spans(line: bytes) -> list[SpanRecord]:
    """Return the span of a line, or those it lists (see `shared.tracing.listed`)."""
    try:
        record = from_json(line)
        service = record.get("service", "")
        listed = record.get("spans", [record])
    except (ValueError, AttributeError):
        return []
    spans = (_span(one, service) for one in listed) if isinstance(listed, list) else ()
    return [span for span in spans if span is not None]


def _span(record: Any, service: str) -> SpanRecord | None:
    try:
        return SpanRecord(
            name=record["span"],
            kind=record["kind"],
            service=service,
            trace_id=record["trace_id"],
            span_id=record["span_id"],
            parent_span_id=record.get("parent_span_id"),
            started=datetime.fromisoformat(record["started"]),
            duration_ms=float(record["duration_ms"]),
            error=record.get("error"),
            attributes=record.get("attributes") or {},
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
