"""The message bus: publishing, subscribing, and what becomes of messages nobody could handle.

`Bus` is the connection, `Publisher` stores messages in streams, `Subscriber` hands the messages of
a `Subscription` to its handler, `DeadLetters` keeps what could not be handled. `JetStreamWrapper`
and what goes with it are the first design's faces of the same.
"""

from shared.messaging.batch import BatchPolicy
from shared.messaging.breaker import Circuit
from shared.messaging.bus import Bus
from shared.messaging.dead_letter import DeadLetter, DeadLetterHead
from shared.messaging.dead_letter_audit import Action, AuditPage, AuditRecord
from shared.messaging.dead_letter_edit import Change, DeadLetterEdit
from shared.messaging.dead_letter_filter import DeadLetterFilter, DeadLetterGroup
from shared.messaging.dead_letters import DeadLetterOutcome, DeadLetterPage, DeadLetters
from shared.messaging.delivery import Delivery
from shared.messaging.dependencies import DepKeys, ServiceDependencies
from shared.messaging.domain import DomainEventPublisher, DomainEventSubscriber
from shared.messaging.engine import Subscriber
from shared.messaging.inspection import (
    ConsumerFacts,
    Inspection,
    MonitoringFacts,
    ReplicaFacts,
    ServerFacts,
    StreamFacts,
)
from shared.messaging.jetstream_wrapper import JetStreamWrapper
from shared.messaging.outgoing import OutgoingMessage, PubAck, Publisher
from shared.messaging.publisher import JetStreamEventPublisher
from shared.messaging.readers import StoredConsumer, find_consumers
from shared.messaging.retry import RetryPolicy
from shared.messaging.stored import StoredMessage, StoredStream, StreamStore
from shared.messaging.subscriber import JetStreamEventSubscriber
from shared.messaging.subscription import State, SubscriberStatus, Subscription

__all__ = [
    "Action",
    "AuditPage",
    "AuditRecord",
    "BatchPolicy",
    "Bus",
    "Change",
    "Circuit",
    "ConsumerFacts",
    "DeadLetter",
    "DeadLetterEdit",
    "DeadLetterFilter",
    "DeadLetterGroup",
    "DeadLetterHead",
    "DeadLetterOutcome",
    "DeadLetterPage",
    "DeadLetters",
    "Delivery",
    "DepKeys",
    "DomainEventPublisher",
    "DomainEventSubscriber",
    "Inspection",
    "JetStreamEventPublisher",
    "JetStreamEventSubscriber",
    "JetStreamWrapper",
    "MonitoringFacts",
    "OutgoingMessage",
    "PubAck",
    "Publisher",
    "ReplicaFacts",
    "RetryPolicy",
    "ServerFacts",
    "ServiceDependencies",
    "State",
    "StoredConsumer",
    "StoredMessage",
    "StoredStream",
    "StreamFacts",
    "StreamStore",
    "Subscriber",
    "SubscriberStatus",
    "Subscription",
    "find_consumers",
]
