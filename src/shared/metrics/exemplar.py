"""What leads from a slow bucket of a histogram to one trace that fell into it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.context import current

if TYPE_CHECKING:
    from shared.context import TraceContext


def exemplar(trace: TraceContext | None = None) -> dict[str, str] | None:
    """Name a trace for `Histogram.observe`: the one given, else the current one, if there is any.

    Exemplars are written in OpenMetrics alone, and not in multi-process mode, where the Prometheus
    client keeps none.
    """
    if trace is None:
        context = current()
        if context is None:
            return None
        trace = context.trace
    return {"trace_id": trace.trace_id}
