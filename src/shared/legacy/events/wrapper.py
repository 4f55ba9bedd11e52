"""Typed wrappers: an envelope whose payload is a model, under the name `data`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel

from shared.context import Context, current, new_event_id
from shared.events.envelope import Envelope
from shared.legacy.events.context import EventContext

# The dict comes first: offered a dict, pydantic would make an empty `BaseModel` of it otherwise.
TData = TypeVar("TData", bound=dict[str, Any] | BaseModel)


class EventWrapper(BaseModel, Generic[TData]):
    """An event or command with typed data; subclasses give `subject` a default."""

    subject: str
    idempotency_key: str | None = None
    event_id: str | None = None
    trace_id: str | None = None
    correlation_id: str | None = None
    timestamp: datetime | None = None
    metadata: dict[str, Any] | None = None
    data: TData

    @classmethod
    def from_context(cls, context: EventContext, data: TData, subject: str | None = None) -> Self:
        """Wrap data as the event that `context` describes.

        The subject is the given one, else the class's own, else that of the context.
        """
        field = cls.model_fields["subject"]
        own = context.subject if field.is_required() else field.default
        return cls.model_validate({**context.to_dict(), "subject": subject or own, "data": data})

    @classmethod
    def from_event_dict(cls, event: Mapping[str, Any]) -> Self:
        """Read a received event; from what `to_event_dict` returned, an equal wrapper.

        Raises:
            EnvelopeError: it is not an envelope.
            pydantic.ValidationError: its payload does not fit.

        """
        document = Envelope.from_dict(event).to_dict()
        return cls.model_validate({**document, "data": document.pop("payload")})

    def to_event_dict(self) -> dict[str, Any]:
        """Return the envelope as plain JSON values.

        Ids, time and source that are still missing are filled in, here and in the wrapper itself,
        so a second call returns the same event. Fields that a subclass adds stand beside the
        payload.

        Raises:
            EnvelopeError: the data is not valid JSON.

        """
        context = current() or Context.start()
        source = {"source_service": context.service} if context.service else {}
        fields: dict[str, Any] = dict(self)
        data = fields.pop("data")
        envelope = Envelope.from_dict(
            {
                **fields,
                "event_id": self.event_id or new_event_id(),
                "trace_id": self.trace_id or context.trace.trace_id,
                "correlation_id": self.correlation_id or context.correlation_id,
                "timestamp": self.timestamp or datetime.now(UTC),
                "metadata": {**source, **(self.metadata or {})},
                "payload": data,
            },
        )
        self.event_id = envelope.event_id
        self.trace_id = envelope.trace_id
        self.correlation_id = envelope.correlation_id
        self.timestamp = envelope.timestamp
        self.metadata = envelope.metadata
        return envelope.to_dict()
