"""What services say to each other: subjects, envelopes and typed payloads.

    from shared.events import Contract, Envelope

    PAID = Contract("evt.invoice.paid", Paid)
    envelope = Envelope.create(PAID, paid, source_service="invoice-service")
    paid = PAID.read(Envelope.decode(envelope.encode()))

Tools for contracts (lock, table, AsyncAPI) are in `shared.contracts`, the product's own subjects
and payloads in `shared.platform`. Names of the first design are loaded when they are asked for.
"""

from typing import TYPE_CHECKING

from shared.events.contract import Contract, UpcastError
from shared.events.envelope import Envelope, EnvelopeError
from shared.events.headers import context_from_message
from shared.events.streams import (
    SERVICE_STREAM_MAP,
    StreamDefinition,
    Streams,
    get_stream_for_service,
    get_stream_from_subject,
    get_stream_subjects,
    stream_definition,
    stream_for_subject,
)
from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.events.context import (
        EventContext,
        EventContextManager,
        EventPayload,
    )
    from shared.legacy.events.wrapper import (
        EventWrapper,
    )
    from shared.legacy.messaging.domain_events import (
        DomainEventPublisher,
        DomainEventSubscriber,
    )

__all__ = [
    "SERVICE_STREAM_MAP",
    "Contract",
    "DomainEventPublisher",
    "DomainEventSubscriber",
    "Envelope",
    "EnvelopeError",
    "EventContext",
    "EventContextManager",
    "EventPayload",
    "EventWrapper",
    "StreamDefinition",
    "Streams",
    "UpcastError",
    "context_from_message",
    "get_stream_for_service",
    "get_stream_from_subject",
    "get_stream_subjects",
    "stream_definition",
    "stream_for_subject",
]

__getattr__, __dir__ = handed_on(__name__)
