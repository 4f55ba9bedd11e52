"""The headers that travel beside an envelope, and the context they carry to the receiver."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from shared.context import Context, TraceContext, new_request_id, new_span_id, safe_id

if TYPE_CHECKING:
    from collections.abc import Mapping

MESSAGE_ID = "Nats-Msg-Id"  # JetStream drops a second message of the same id (its own name)
TRACEPARENT = "traceparent"  # W3C Trace Context, section 3.2
TRACESTATE = "tracestate"  # W3C Trace Context, section 3.3
CORRELATION_ID = "X-Correlation-ID"
CONTENT_TYPE = "Content-Type"
SCHEMA_VERSION = "Glam-Schema-Version"
TENANT = "Glam-Tenant"

_OURS = frozenset(
    {MESSAGE_ID, TRACEPARENT, TRACESTATE, CORRELATION_ID, CONTENT_TYPE, SCHEMA_VERSION, TENANT}
)
_SPELLED = {name.lower(): name for name in _OURS}

_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


def trace_from_id(trace_id: str | None) -> TraceContext | None:
    """Return a trace of that id with a new span, or ``None`` if it is not a trace id.

    The first design's trace ids were UUIDs with dashes; without them they are W3C trace ids.
    """
    digits = (trace_id or "").replace("-", "").lower()
    return TraceContext(digits, new_span_id()) if _TRACE_ID.fullmatch(digits) else None


def value_of(headers: Mapping[str, str], name: str) -> str | None:
    """Return the value of a header, whose name may be spelled in any case."""
    if name in headers:
        return headers[name]
    wanted = name.lower()
    return next((value for other, value in headers.items() if other.lower() == wanted), None)


def version_of(headers: Mapping[str, str]) -> str | None:
    """Return the version of the payload's form that a message's headers name, in any case."""
    return value_of(headers, SCHEMA_VERSION)


class Sent(Protocol):
    """What an envelope says about whose work it is."""

    @property
    def trace_id(self) -> str | None:
        """The trace it was sent in."""

    @property
    def correlation_id(self) -> str | None:
        """The id that its sender's caller gave."""

    @property
    def tenant_id(self) -> str | None:
        """The tenant that the payload itself names, as its `merchant_id`, if it does."""


def context_from_message(
    envelope: Sent, headers: Mapping[str, str] | None, service: str
) -> Context:
    """Return the context in which `service` handles a message; never raises.

    The trace is the sender's (``traceparent``, else the envelope's trace id, else a new one), so a
    span of the receiver is its child. Correlation id and tenant come from the headers, else from
    the envelope; what is unsafe to log is replaced. Header names are read in any case.
    """
    sent = headers or {}
    if not sent.keys() <= _OURS:  # else each is spelled as we spell it, and is looked up so
        sent = {_SPELLED.get(name.lower(), name): value for name, value in sent.items()}
    trace = (
        TraceContext.parse(sent.get(TRACEPARENT), sent.get(TRACESTATE))
        or trace_from_id(envelope.trace_id)
        or TraceContext.start()
    )
    return Context(
        request_id=new_request_id(),
        correlation_id=safe_id(sent.get(CORRELATION_ID))
        or safe_id(envelope.correlation_id)
        or trace.trace_id,
        trace=trace,
        tenant_id=safe_id(sent.get(TENANT)) or envelope.tenant_id,
        service=service,
    )
