"""Spans, written as log lines: the lines of one trace id, put together, are the trace.

with span("charge card", kind="client", provider="stripe") as charge:
    ...
    charge.set(amount=total)
"""

from shared.tracing.span import Kind, Span, record_span, span

__all__ = ["Kind", "Span", "record_span", "span"]
