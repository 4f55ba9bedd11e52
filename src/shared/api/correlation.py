"""The correlation id: one id for all that follows from one cause, across services.

The edge decides it once per request; these functions read that decision, and carry it on.
"""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import Request

from shared.context import Context, attach, current, safe_id


def get_correlation_id(request: Request) -> str:
    """Return the request's correlation id: the edge's, and without an edge the caller's if safe.

    It is the same for every call in one request.
    """
    correlation_id = getattr(request.state, "correlation_id", None)
    if correlation_id is None:
        context = current() or Context.start(
            correlation_id=safe_id(request.headers.get("X-Correlation-ID"))
        )
        correlation_id = request.state.correlation_id = context.correlation_id
    return str(correlation_id)


CorrelationIdDep = Annotated[str, Depends(get_correlation_id)]


def set_correlation_context(correlation_id: str) -> None:
    """Change the correlation id for the rest of the current task, and of tasks it starts.

    An id that is not safe to echo is replaced, as one from a header is. To change it for a block
    only, bind a context with `shared.context.bind`.
    """
    context = current()
    started = Context.start(correlation_id=correlation_id, trace=context.trace if context else None)
    if context is not None:
        started = replace(context, correlation_id=started.correlation_id)
    attach(started)


def get_correlation_context() -> str | None:
    """Return the current correlation id, ``None`` outside of a request or message."""
    context = current()
    return context.correlation_id if context else None


def outgoing_headers() -> dict[str, str]:
    """Return the headers that carry correlation and trace to the next service over HTTP.

    Empty outside of a request or message.

        await client.get(url, headers=outgoing_headers())
    """
    context = current()
    if context is None:
        return {}
    headers = {
        "X-Correlation-ID": context.correlation_id,
        "traceparent": context.trace.traceparent,
    }
    if context.trace.tracestate:
        headers["tracestate"] = context.trace.tracestate
    return headers


def add_correlation_header(headers: dict[str, str]) -> dict[str, str]:
    """Add `outgoing_headers` to ``headers``, in place, and return it."""
    headers.update(outgoing_headers())
    return headers


def add_correlation_to_event(event_data: dict[str, Any]) -> dict[str, Any]:
    """Add correlation and trace id to an event, in place, and return it; ids it has stay.

    Events made by `shared.events.Envelope.create` have them.
    """
    context = current()
    if context is not None:
        event_data["correlation_id"] = event_data.get("correlation_id") or context.correlation_id
        event_data["trace_id"] = event_data.get("trace_id") or context.trace.trace_id
    return event_data


def extract_correlation_from_event(event_data: dict[str, Any]) -> str | None:
    """Return an event's correlation id, from the envelope or its metadata, if it has one."""
    metadata = event_data.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    found = event_data.get("correlation_id") or metadata.get("correlation_id")
    return None if found is None else str(found)
