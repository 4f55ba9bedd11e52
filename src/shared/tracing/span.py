"""A span: one timed step of a trace."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Protocol

from shared.context import Context, TraceContext, bind, current

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal["internal", "server", "client", "producer", "consumer"]
"""The side of a call the span stands on (OpenTelemetry, Trace API, SpanKind)."""

_logger = logging.getLogger("shared.tracing")


@dataclass(frozen=True, slots=True)
class FinishedSpan:
    """A step that is over, as `record_span` was told of it."""

    name: str
    kind: Kind
    context: TraceContext
    parent_span_id: str | None
    started: datetime
    duration_seconds: float
    error: str | None
    attributes: Mapping[str, object]


class SpanExporter(Protocol):
    """Takes finished spans to another place than the log."""

    def export(self, span: FinishedSpan) -> None:
        """Take a span whose trace is sampled.

        Called on the event loop, for every such span: it neither blocks nor raises.
        """


_exporter: SpanExporter | None = None


def export_to(taker: SpanExporter | None) -> None:
    """Hand all spans that end from now on to ``taker`` as well; with ``None``, to nobody."""
    global _exporter  # noqa: PLW0603 - as for log records, there is one place for the process
    _exporter = taker


def exporter() -> SpanExporter | None:
    """Return who takes finished spans beside the log, ``None`` if nobody does."""
    return _exporter


@dataclass(slots=True)
class Span:
    """A step that is under way. It belongs to the task that opened it."""

    context: TraceContext
    parent_span_id: str | None
    attributes: dict[str, object] = field(default_factory=dict)

    def set(self, **attributes: object) -> None:
        """Add attributes, or change those of the same name, before the span ends."""
        self.attributes.update(attributes)


@contextmanager
def span(
    name: str, *, kind: Kind = "internal", parent: TraceContext | None = None, **attributes: object
) -> Iterator[Span]:
    """Time the block as a span, and record it once when the block ends, however it ends.

    Inside the block `current()` has the span's trace, so that log lines, headers and inner spans
    belong to it; the other ids stay, or are started if there were none. An exception, cancellation
    too, is named in the record and goes on.

    Args:
        name: a name of few values, such as a route or a subject; ids belong in the attributes.
        kind: the side of a call the span stands on.
        parent: the span this one belongs under; without it the current one, else it is the root.
        **attributes: what to record beside the times.
    """
    outer = current()
    if parent is None and outer is not None:
        parent = outer.trace
    trace = TraceContext.start() if parent is None else parent.child()
    context = Context.start(trace=trace) if outer is None else replace(outer, trace=trace)
    active = Span(trace, parent.span_id if parent else None, attributes)
    error: str | None = None
    with bind(context):
        started = datetime.now(UTC)
        begun = time.perf_counter()
        try:
            yield active
        except BaseException as exception:
            error = _describe(exception)
            raise
        finally:
            seconds = time.perf_counter() - begun
            _write(name, kind, trace, active.parent_span_id, started, seconds, error, attributes)


def record_span(
    *,
    name: str,
    kind: Kind,
    context: TraceContext,
    parent_span_id: str | None,
    started: datetime,
    duration_seconds: float,
    error: str | None = None,
    logged: bool = True,
    **attributes: object,
) -> None:
    """Write a finished span as one record of the logger `shared.tracing`, at level INFO.

    The record has the fields `span`, `kind`, `trace_id`, `span_id`, `parent_span_id`, `started`
    (ISO 8601 with offset), `duration_ms`, `attributes` and, if the step failed, `error`. It is
    written whether or not the caller's trace flags say sampled: the log is ours to keep. With
    ``logged=False`` it is not written at all, and only exported, if spans are.
    """
    _write(
        name, kind, context, parent_span_id, started, duration_seconds, error, attributes, logged
    )


def _write(
    name: str,
    kind: Kind,
    context: TraceContext,
    parent_span_id: str | None,
    started: datetime,
    duration_seconds: float,
    error: str | None,
    attributes: Mapping[str, object],
    logged: bool = True,
) -> None:
    if _exporter is not None and context.sampled:
        _exporter.export(
            FinishedSpan(
                name, kind, context, parent_span_id, started, duration_seconds, error, attributes
            )
        )
    if not logged:
        return
    fields: dict[str, object] = {
        "span": name,
        "kind": kind,
        "trace_id": context.trace_id,
        "span_id": context.span_id,
        "parent_span_id": parent_span_id,
        "started": started.isoformat(),
        "duration_ms": round(duration_seconds * 1000, 3),
    }
    if error is not None:
        fields["error"] = error
    if attributes:
        fields["attributes"] = dict(attributes)
    _logger.info("span %s", name, extra=fields)


def _describe(exception: BaseException) -> str:
    name = type(exception).__qualname__
    try:
        text = str(exception)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return name
    return f"{name}: {text}" if text else name
