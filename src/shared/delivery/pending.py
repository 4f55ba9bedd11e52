"""A message of the outbox on its way to its stream, and the span of that way."""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from shared.context import Context, TraceContext, bind
from shared.messaging import OutgoingMessage
from shared.tracing import record_span

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from shared.messaging import PubAck

__all__ = ["Pending"]


class Pending(NamedTuple):
    """A row of the outbox, with the lease under which it was read."""

    id: int
    event_id: str
    subject: str
    key: str | None
    message_id: str
    headers: dict[str, str]
    body: bytes
    created_at: datetime
    attempts: int
    partition: int
    token: int

    def outgoing(self, fence: Mapping[str, str]) -> OutgoingMessage:
        """Return the message as it goes to the stream, with the headers of a fence."""
        trace = self._span(self._parent())
        headers = {**self.headers, "traceparent": trace.traceparent, **fence}
        return OutgoingMessage(self.subject, self.body, headers, self.message_id)

    def record(self, ack: PubAck, acknowledged: datetime, *, service: str) -> None:
        """Record the span from the commit's side of the outbox to the stream's acknowledgement."""
        parent = self._parent()
        trace = self._span(parent)
        context = Context.start(
            correlation_id=self.headers.get("X-Correlation-ID"),
            trace=trace,
            tenant_id=self.headers.get("Glam-Tenant"),
            service=service,
        )
        with bind(context):
            record_span(
                name=f"publish {self.subject}",
                kind="producer",
                context=trace,
                parent_span_id=parent.span_id if parent else None,
                started=self.created_at,
                duration_seconds=max(0.0, (acknowledged - self.created_at).total_seconds()),
                event_id=self.event_id,
                stream=ack.stream,
                sequence=ack.sequence,
                duplicate=ack.duplicate,
                attempts=self.attempts + 1,
            )

    def _parent(self) -> TraceContext | None:
        return TraceContext.parse(self.headers.get("traceparent"), self.headers.get("tracestate"))

    def _span(self, parent: TraceContext | None) -> TraceContext:
        """The producer's span; the same on every attempt, so the consumer's parent is recorded."""
        seed = blake2b(self.event_id.encode(), digest_size=24).hexdigest()
        if parent is None:
            return TraceContext(trace_id=seed[:32], span_id=seed[32:])
        return replace(parent, span_id=seed[32:])
