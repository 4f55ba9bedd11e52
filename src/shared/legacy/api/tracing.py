"""The trace id of the current work; see `shared.tracing` for spans."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from shared.api.edge import Edge
from shared.context import Context, TraceContext, attach, current, new_span_id

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["TracingMiddleware", "get_trace_context", "set_trace_context"]

_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


def set_trace_context(trace_id: str | None) -> None:
    """Go on with this trace for the rest of the current task, and of tasks it starts.

    A UUID is taken without its dashes. Anything that is not a trace id (32 hexadecimal digits, not
    all zero), and ``None``, starts a new trace.
    """
    text = (trace_id or "").replace("-", "").lower()
    trace = TraceContext(text, new_span_id()) if _TRACE_ID.fullmatch(text) else TraceContext.start()
    context = current()
    attach(replace(context, trace=trace) if context else Context.start(trace=trace))


def get_trace_context() -> str | None:
    """Return the current trace id, ``None`` outside of a request or message."""
    context = current()
    return context.trace.trace_id if context else None


class TracingMiddleware(Edge):
    """The `Edge`, without metrics, under an older name."""

    def __init__(self, app: ASGIApp) -> None:
        super().__init__(app, service="glam-service")
