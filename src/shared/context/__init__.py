"""Ids and trace of the current work, carried by a context variable.

context = Context.start(trace=TraceContext.parse(traceparent, tracestate))
with bind(context):
    ...  # current() is context, in this task and in those it starts
"""

from shared.context.context import Context, attach, bind, current
from shared.context.identifiers import (
    new_event_id,
    new_request_id,
    new_span_id,
    new_trace_id,
    safe_id,
)
from shared.context.trace import TraceContext

__all__ = [
    "Context",
    "TraceContext",
    "attach",
    "bind",
    "current",
    "new_event_id",
    "new_request_id",
    "new_span_id",
    "new_trace_id",
    "safe_id",
]
