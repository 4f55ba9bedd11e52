"""What services say to each other: subjects, envelopes and typed payloads.

    from shared.events import Contract, Envelope

    PAID = Contract("evt.invoice.paid", Paid)
    envelope = Envelope.create(PAID, paid, source_service="invoice-service")
    paid = PAID.read(Envelope.decode(envelope.encode()))

Tools for contracts (lock, table, AsyncAPI) are in `shared.contracts`, the product's own subjects
and payloads in `shared.platform`. Names of the first design are loaded when they are asked for.
"""

from typing import TYPE_CHECKING

from shared.events.codec import ENVELOPE, JSON, Codec, Decoded
from shared.events.contract import Contract, UpcastError
from shared.events.envelope import Envelope, EnvelopeError
from shared.events.headers import context_from_message
from shared.events.streams import CONVENTION, StreamDefinition, StreamError, StreamTable
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
    from shared.platform.streams import (
        SERVICE_STREAM_MAP,
        Streams,
        get_stream_for_service,
        get_stream_from_subject,
        get_stream_subjects,
    )

__all__ = [
    "CONVENTION",
    "ENVELOPE",
    "JSON",
    "SERVICE_STREAM_MAP",
    "Codec",
    "Contract",
    "Decoded",
    "DomainEventPublisher",
    "DomainEventSubscriber",
    "Envelope",
    "EnvelopeError",
    "EventContext",
    "EventContextManager",
    "EventPayload",
    "EventWrapper",
    "StreamDefinition",
    "StreamError",
    "StreamTable",
    "Streams",
    "UpcastError",
    "context_from_message",
    "get_stream_for_service",
    "get_stream_from_subject",
    "get_stream_subjects",
]

__getattr__, __dir__ = handed_on(__name__)
