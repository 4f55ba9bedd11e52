"""A message of the outbox on its way to its stream, and the span of that way."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from shared.context import Context, TraceContext, bind
from shared.messaging import OutgoingMessage
from shared.tracing import FinishedSpan
from shared.tracing.listed import ListedSpan, write_list
from shared.tracing.span import write_span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from shared.messaging import PubAck


# The headers that name the work a message came from, as a log line names it.
_IDS = {"X-Correlation-ID": "correlation_id", "Glam-Tenant": "tenant_id"}


@dataclass(slots=True)
class Pending:
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
    _known: tuple[TraceContext, str | None] | None = field(default=None, init=False, repr=False)

    def message(self, fence: Mapping[str, str], *, spans: bool = True) -> OutgoingMessage:
        """Return the message as it goes to the stream, with the headers of a fence.

        Its trace goes on from the producer's span if there is one, else from where it was added.
        """
        headers = {**self.headers, **fence}
        if spans:
            headers["traceparent"] = self._spans()[0].traceparent
        return OutgoingMessage(self.subject, self.body, headers, self.message_id)

    def span(self, ack: PubAck, acknowledged: datetime) -> FinishedSpan:
        """Return the span from the commit's side of the outbox to the stream's acknowledgement."""
        trace, parent_span_id = self._spans()
        return FinishedSpan(
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
        if self._known is None:
            headers = self.headers
            own = blake2b(self.event_id.encode(), digest_size=24).hexdigest()
            parent = TraceContext.parse(headers.get("traceparent"), headers.get("tracestate"))
            if parent is None:
                self._known = TraceContext(own[:32], own[32:]), None
            else:
                trace = TraceContext(parent.trace_id, own[32:], parent.flags, parent.tracestate)
                self._known = trace, parent.span_id
        return self._known


def record_published(
    published: Sequence[tuple[Pending, PubAck, datetime]], *, service: str
) -> None:
    """Record the spans of what was published in one turn: one in a line of its own, or a list."""
    if len(published) > 1:
        write_list(
            [
                ListedSpan(
                    row.span(ack, acknowledged),
                    {
                        name: row.headers[header]
                        for header, name in _IDS.items()
                        if header in row.headers
                    },
                )
                for row, ack, acknowledged in published
            ]
        )
        return
    for row, ack, acknowledged in published:
        span = row.span(ack, acknowledged)
        context = Context.start(
            correlation_id=row.headers.get("X-Correlation-ID"),
            trace=span.context,
            tenant_id=row.headers.get("Glam-Tenant"),
            service=service,
        )
        with bind(context):
            write_span(
                span.name,
                span.kind,
                span.context,
                span.parent_span_id,
                span.started,
                span.duration_seconds,
                None,
                span.attributes,
            )
