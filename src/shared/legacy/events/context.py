"""An event's ids without its payload, as handlers of the first design pass them around."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shared.context import Context, attach, current, new_event_id, safe_id
from shared.events.envelope import Envelope
from shared.events.headers import trace_from_id

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

T = TypeVar("T")

_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message"}


@dataclass
class EventContext:
    """Who sent which event, when, and as part of what."""

    event_id: str
    trace_id: str
    subject: str
    correlation_id: str | None
    timestamp: datetime
    source_service: str
    idempotency_key: str | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> EventContext:
        """Read the context of a received event, with or without its payload.

        A missing or null timestamp becomes the time of reading, missing metadata an empty dict,
        a missing trace id that of the current context, a missing source ``"unknown"``.

        Raises:
            EnvelopeError: event id or subject is missing, or a field does not fit.

        """
        envelope = Envelope.from_dict({"timestamp": None, **event, "payload": {}})
        return cls(
            event_id=envelope.event_id,
            trace_id=envelope.trace_id or (current() or Context.start()).trace.trace_id,
            subject=envelope.subject,
            correlation_id=envelope.correlation_id,
            timestamp=envelope.timestamp,
            source_service=str(envelope.metadata.get("source_service") or "unknown"),
            idempotency_key=envelope.idempotency_key,
            metadata=envelope.metadata,
        )

    @classmethod
    def create(
        cls,
        *,
        subject: str,
        source_service: str,
        correlation_id: str | None = None,
        idempotency_key: str | None = None,
        metadata: dict[str, Any] | None = None,
        trace_id: str | UUID | None = None,
    ) -> EventContext:
        """Begin a new event, with the ids of the current context unless others are given."""
        trace_id = None if trace_id is None else str(trace_id)
        context = current() or Context.start(trace=trace_from_id(trace_id))
        return cls(
            event_id=new_event_id(),
            trace_id=trace_id or context.trace.trace_id,
            subject=subject,
            correlation_id=correlation_id or context.correlation_id,
            timestamp=datetime.now(UTC),
            source_service=source_service,
            idempotency_key=idempotency_key,
            metadata=dict(metadata or {}),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of the envelope, all but the payload, as plain JSON values."""
        document = self._envelope({}).to_dict()
        del document["payload"]
        return document

    def apply_correlation(self) -> None:
        """Make correlation id and trace of this event current for the rest of the task."""
        context = current() or Context.start()
        trace = trace_from_id(self.trace_id)
        if trace is None or trace.trace_id == context.trace.trace_id:
            trace = context.trace
        correlation_id = safe_id(self.correlation_id) or context.correlation_id
        attach(replace(context, correlation_id=correlation_id, trace=trace))

    def create_response_context(
        self,
        response_subject: str,
        response_service: str,
        idempotency_key: str | None = None,
        additional_metadata: dict[str, Any] | None = None,
    ) -> EventContext:
        """Begin the event that answers this one: same trace and correlation, a new event id.

        Its metadata names this event (``triggered_by``) and its sender (``original_source``).
        """
        return EventContext(
            event_id=new_event_id(),
            trace_id=self.trace_id,
            subject=response_subject,
            correlation_id=self.correlation_id,
            timestamp=datetime.now(UTC),
            source_service=response_service,
            idempotency_key=idempotency_key,
            metadata={
                "triggered_by": self.event_id,
                "original_source": self.source_service,
                **(additional_metadata or {}),
            },
        )

    def _envelope(self, payload: object) -> Envelope:
        fields = dict(vars(self))
        source_service = fields.pop("source_service")
        fields["metadata"] = {**(self.metadata or {}), "source_service": source_service}
        return Envelope.from_dict({**fields, "payload": payload})


@dataclass
class EventPayload(Generic[T]):
    """A context and the data that goes with it."""

    context: EventContext
    data: T

    @property
    def correlation_id(self) -> str | None:
        """The correlation id of the context."""
        return self.context.correlation_id

    def to_event_dict(self) -> dict[str, Any]:
        """Return the envelope as plain JSON values.

        Raises:
            EnvelopeError: the data is not a JSON object.

        """
        return self.context._envelope(self.data).to_dict()  # noqa: SLF001 - same module


class EventContextManager:
    """Reads contexts and logs outcomes, with a logger of the caller's or this module's own."""

    def __init__(self, logger: Any = None) -> None:
        self.logger = logger or logging.getLogger(__name__)

    def extract_context(self, event: Mapping[str, Any]) -> EventContext:
        """Return `EventContext.from_event` of a received event."""
        return EventContext.from_event(event)

    def log_event_completion(
        self,
        context: EventContext,
        success: bool,
        duration_ms: float,
        error: Exception | None = None,
        additional_data: dict[str, Any] | None = None,
    ) -> None:
        """Log that an event was handled: at INFO, or at ERROR with the traceback of `error`.

        Fields of `additional_data` that a log record has already get the prefix ``data_``.
        """
        fields: dict[str, Any] = {
            f"data_{name}" if name in _RECORD_FIELDS else name: value
            for name, value in (additional_data or {}).items()
        }
        fields |= {
            "event_id": context.event_id,
            "subject": context.subject,
            "trace_id": context.trace_id,
            "correlation_id": context.correlation_id,
            "source_service": context.source_service,
            "success": success,
            "duration_ms": duration_ms,
        }
        if success:
            self.logger.info("Handled %s", context.subject, extra=fields)
        else:
            if error is not None:
                fields |= {"error": str(error), "error_type": type(error).__name__}
            self.logger.error("Failed %s", context.subject, extra=fields, exc_info=error)
