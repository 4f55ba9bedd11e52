"""A span: one timed step of a trace."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, Protocol

from shared.context import Context, TraceContext, bind, current
from shared.logging.formatters import timestamp
from shared.logging.record import log_directly

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

Kind = Literal["internal", "server", "client", "producer", "consumer"]
"""The side of a call the span stands on (OpenTelemetry, Trace API, SpanKind)."""

_logger = logging.getLogger("shared.tracing")


@dataclass(frozen=True, slots=True)
class FinishedSpan:
    """A span that has ended, as `record_span` takes it."""

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


def span(
    name: str,
    *,
    kind: Kind = "internal",
    parent: TraceContext | None = None,
    context: Context | None = None,
    **attributes: object,
) -> AbstractContextManager[Span]:
    """Time the block as a span, and record it once when the block ends, however it ends.

    Inside the block `current()` has the span's trace, so that log lines, headers and inner spans
    belong to it; the other ids stay, or are started if there were none. An exception, cancellation
    too, is named in the record and goes on.

    >>> with span("charge card", kind="client", provider="acme") as step:
    ...     step.set(status=200)
    ...     current().trace == step.context
    True

    Args:
        name: a name of few values, such as a route or a subject; ids belong in the attributes.
        kind: the side of a call the span stands on.
        parent: the span this one belongs under; without it the current one, else it is the root.
        context: whose work the block is, in place of the current one; its trace is the parent.
        **attributes: what to record beside the times.
    """
    return _Block(name, kind, parent, context, attributes)


class _Block(AbstractContextManager[Span]):
    __slots__ = ("_active", "_began", "_bound", "_clock", "_kind", "_name", "_outer", "_parent")

    def __init__(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        outer: Context | None,
        attributes: dict[str, object],
    ) -> None:
        self._outer = outer
        self._name = name
        self._kind: Kind = kind
        self._parent = parent
        self._active = Span(_NOT_BEGUN, None, attributes)

    def __enter__(self) -> Span:
        outer, parent, active = self._outer or current(), self._parent, self._active
        if parent is None and outer is not None:
            parent = outer.trace
        active.context = trace = TraceContext.start() if parent is None else parent.child()
        active.parent_span_id = parent.span_id if parent else None
        self._bound = bind(Context.start(trace=trace) if outer is None else outer.within(trace))
        self._bound.__enter__()
        self._began = time.time()
        self._clock = time.perf_counter()
        return active

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._clock
        active = self._active
        try:
            write_span(
                self._name,
                self._kind,
                active.context,
                active.parent_span_id,
                self._began,
                seconds,
                None if error is None else _describe(error),
                active.attributes,
            )
        finally:
            self._bound.__exit__(None, None, None)


_NOT_BEGUN = TraceContext("f" * 32, "f" * 16)


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
    write_span(
        name,
        kind,
        context,
        parent_span_id,
        started,
        duration_seconds,
        error,
        attributes,
        logged,
    )


def write_span(
    name: str,
    kind: Kind,
    context: TraceContext,
    parent_span_id: str | None,
    started: datetime | float,
    duration_seconds: float,
    error: str | None,
    attributes: Mapping[str, object],
    logged: bool = True,
) -> None:
    """Record a finished span, as `record_span`; `started` may be seconds since 1970.

    A span that nobody would see, in the log or where spans are exported, costs next to nothing.
    """
    if _exporter is not None and context.sampled:
        moment = datetime.fromtimestamp(started, UTC) if isinstance(started, float) else started
        _exporter.export(
            FinishedSpan(
                name, kind, context, parent_span_id, moment, duration_seconds, error, attributes
            )
        )
    if not logged or not _logger.isEnabledFor(logging.INFO):
        return
    fields: dict[str, object] = {
        "span": name,
        "kind": kind,
        "trace_id": context.trace_id,
        "span_id": context.span_id,
        "parent_span_id": parent_span_id,
        "started": timestamp(started) if isinstance(started, float) else started.isoformat(),
        "duration_ms": round(duration_seconds * 1000, 3),
    }
    if error is not None:
        fields["error"] = error
    if attributes:
        fields["attributes"] = dict(attributes)
    if not log_directly(_logger, logging.INFO, "span %s", (name,), fields):
        _logger.info("span %s", name, extra=fields)


def _describe(exception: BaseException) -> str:
    name = type(exception).__qualname__
    try:
        text = str(exception)
    except Exception:  # noqa: BLE001 - a foreign __str__ may raise anything
        return name
    return f"{name}: {text}" if text else name


def instrumented_trace() -> TraceContext | None:
    """Return OpenTelemetry's current span, ``None`` if there is none.

    Where ``opentelemetry-instrument``, an ``instrument_app`` or FastAPI's own telemetry has opened
    a span around the application, our span belongs under it: read from the request's headers
    instead, the two would be siblings, and without a caller's trace they would not even be of the
    same trace.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    found = api.get_current_span().get_span_context()
    if not found.is_valid:
        return None
    return TraceContext(
        format(found.trace_id, "032x"),
        format(found.span_id, "016x"),
        int(found.trace_flags),
        found.trace_state.to_header(),
    )
