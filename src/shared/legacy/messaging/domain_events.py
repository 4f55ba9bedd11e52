"""The first design's publisher and subscriber of one domain's stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from shared.legacy.messaging.event_publisher import JetStreamEventPublisher
from shared.legacy.messaging.event_subscriber import JetStreamEventSubscriber
from shared.platform.streams import (
    Streams,
    get_stream_for_service,
    get_stream_from_subject,
    get_stream_subjects,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID


class DomainEventPublisher(JetStreamEventPublisher):
    """Publishes into the stream of `domain_stream`, or of the service of `service_name_override`.

    Raises:
        ValueError: On use, when a subclass sets neither.
    """

    domain_stream: ClassVar[Streams | None] = None
    service_name_override: ClassVar[str | None] = None

    @property
    def stream_name(self) -> str:
        """The stream of the domain."""
        return (self.domain_stream or get_stream_for_service(self.service_name)).value

    @property
    def subjects(self) -> list[str]:
        """All commands and events of the domain."""
        return get_stream_subjects(Streams(self.stream_name))

    @property
    def service_name(self) -> str:
        """`service_name_override`, else the domain's own service, such as `credit-service`."""
        if self.service_name_override is not None:
            return self.service_name_override
        if self.domain_stream is None:
            raise ValueError(
                f"{type(self).__name__} sets neither domain_stream nor service_name_override"
            )
        return f"{self.domain_stream.value.lower().replace('_', '-')}-service"

    async def publish_event(  # type: ignore[override] # the first design has no trace_id here
        self,
        subject: str = "",
        payload: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
        idempotency_key: str | int | UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        event_type: str | None = None,
        trace_id: str | None = None,
    ) -> str:
        """Publish an event; see `JetStreamEventPublisher.publish_event`."""
        return await super().publish_event(
            subject,
            payload,
            correlation_id=correlation_id,
            trace_id=trace_id,
            idempotency_key=idempotency_key,
            metadata=metadata,
            event_type=event_type,
        )


class DomainEventSubscriber(JetStreamEventSubscriber):
    """Reads the stream that its subject belongs to."""

    @property
    def stream_name(self) -> str:
        """The stream of the subject."""
        return get_stream_from_subject(self.subject).value
