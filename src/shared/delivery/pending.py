"""A message of the outbox on its way to its stream, and the span of that way."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from shared.context import Context, TraceContext, bind
from shared.messaging import OutgoingMessage
from shared.tracing.span import write_span

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

    def outgoing(self, fence: Mapping[str, str], *, spans: bool = True) -> OutgoingMessage:
        """Return the message as it goes to the stream, with the headers of a fence.

        Its trace goes on from the producer's span if there is one, else from where it was added.
        """
        headers = {**self.headers, **fence}
        if spans:
            headers["traceparent"] = self._spans()[0].traceparent
        return OutgoingMessage(self.subject, self.body, headers, self.message_id)

    def record(self, ack: PubAck, acknowledged: datetime, *, service: str) -> None:
        """Record the span from the commit's side of the outbox to the stream's acknowledgement."""
        trace, parent_span_id = self._spans()
        context = Context.start(
            correlation_id=self.headers.get("X-Correlation-ID"),
            trace=trace,
            tenant_id=self.headers.get("Glam-Tenant"),
            service=service,
        )
        with bind(context):
            write_span(
                f"publish {self.subject}",
                "producer",
                trace,
                parent_span_id,
                self.created_at,
                max(0.0, (acknowledged - self.created_at).total_seconds()),
                None,
                {
                    "event_id": self.event_id,
                    "stream": ack.stream,
                    "sequence": ack.sequence,
                    "duplicate": ack.duplicate,
                    "attempts": self.attempts + 1,
                },
            )

    def _spans(self) -> tuple[TraceContext, str | None]:
        """The producer's span, and the id of the one it belongs under.

        It is the same on every attempt, so that the consumer's parent is recorded.
        """
        own = blake2b(self.event_id.encode(), digest_size=24).hexdigest()
        parent = TraceContext.parse(self.headers.get("traceparent"), self.headers.get("tracestate"))
        if parent is None:
            return TraceContext(own[:32], own[32:]), None
        return TraceContext(parent.trace_id, own[32:], parent.flags, parent.tracestate), (
            parent.span_id
        )
