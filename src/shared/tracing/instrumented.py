"""The span that OpenTelemetry's own instrumentation has open around us."""

from __future__ import annotations

import sys

from shared.context import TraceContext


def instrumented_trace() -> TraceContext | None:
    """Return OpenTelemetry's current span, ``None`` if there is none.

    Where ``opentelemetry-instrument``, an ``instrument_app`` or FastAPI's own telemetry has opened
    a span around the application, a span of ours belongs under it: read from the request's headers
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
