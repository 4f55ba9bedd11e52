"""Spans, written as log lines: the lines of one trace id, put together, are the trace.

with span("charge card", kind="client", provider="stripe") as charge:
    ...
    charge.set(amount=total)

`configure_tracing` sends them to an OpenTelemetry collector as well.
"""

from shared.tracing.configure import configure_tracing
from shared.tracing.span import (
    FinishedSpan,
    Kind,
    Span,
    SpanExporter,
    export_to,
    exporter,
    instrumented_trace,
    record_span,
    span,
)

__all__ = [
    "FinishedSpan",
    "Kind",
    "Span",
    "SpanExporter",
    "configure_tracing",
    "export_to",
    "exporter",
    "instrumented_trace",
    "record_span",
    "span",
]
