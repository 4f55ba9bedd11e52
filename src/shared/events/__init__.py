"""What services say to each other: subjects, envelopes and typed payloads.

    from shared.events import Envelope
    from shared.events.credit import ORDER_UPDATED

    envelope = Envelope.create(ORDER_UPDATED, order, source_service="webhook-service")
    order = ORDER_UPDATED.read(Envelope.decode(envelope.encode()))

The product's own subjects and payloads are in `shared.events.catalog`, `.credit`, `.notification`
and `.scheduler`; they are loaded when imported or asked for by `contracts`. The domain publisher
and subscriber need NATS and are loaded on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from shared.events.context import EventContext, EventContextManager, EventPayload
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
from shared.events.wrapper import EventWrapper

if TYPE_CHECKING:
    from shared.events.asyncapi import asyncapi_document
    from shared.events.base_publisher import DomainEventPublisher
    from shared.events.base_subscriber import DomainEventSubscriber
    from shared.events.contract_lock import (
        Change,
        ChangeKind,
        ContractLock,
        LockError,
        compare_contracts,
    )
    from shared.events.declared import contracts
    from shared.events.reader import Impact, Reader, Verdict
    from shared.events.schema_diff import Break, find_breaks
    from shared.events.table import ContractRow, ContractTable, describe

__all__ = [
    "SERVICE_STREAM_MAP",
    "Break",
    "Change",
    "ChangeKind",
    "Contract",
    "ContractLock",
    "ContractRow",
    "ContractTable",
    "DomainEventPublisher",
    "DomainEventSubscriber",
    "Envelope",
    "EnvelopeError",
    "EventContext",
    "EventContextManager",
    "EventPayload",
    "EventWrapper",
    "Impact",
    "LockError",
    "Reader",
    "StreamDefinition",
    "Streams",
    "UpcastError",
    "Verdict",
    "asyncapi_document",
    "compare_contracts",
    "context_from_message",
    "contracts",
    "describe",
    "find_breaks",
    "get_stream_for_service",
    "get_stream_from_subject",
    "get_stream_subjects",
    "stream_definition",
    "stream_for_subject",
]

_LAZY = {
    "Break": "shared.events.schema_diff",
    "Change": "shared.events.contract_lock",
    "ChangeKind": "shared.events.contract_lock",
    "ContractLock": "shared.events.contract_lock",
    "ContractRow": "shared.events.table",
    "ContractTable": "shared.events.table",
    "DomainEventPublisher": "shared.events.base_publisher",
    "DomainEventSubscriber": "shared.events.base_subscriber",
    "Impact": "shared.events.reader",
    "LockError": "shared.events.contract_lock",
    "Reader": "shared.events.reader",
    "Verdict": "shared.events.reader",
    "asyncapi_document": "shared.events.asyncapi",
    "compare_contracts": "shared.events.contract_lock",
    "contracts": "shared.events.declared",
    "describe": "shared.events.table",
    "find_breaks": "shared.events.schema_diff",
}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
