"""A path of the first design: what it names lives in `shared.legacy.api.tracing`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.api.tracing import (
        TracingMiddleware,
        get_trace_context,
        set_trace_context,
    )

__all__ = [
    "TracingMiddleware",
    "get_trace_context",
    "set_trace_context",
]

__getattr__, __dir__ = handed_on(__name__)
