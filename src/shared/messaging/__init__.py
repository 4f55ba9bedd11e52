"""The message bus: publishing, subscribing, and what becomes of messages nobody could handle.

`Bus` is the connection, `Publisher` stores messages in streams, `Subscriber` hands the messages of
a `Subscription` to its handler, `DeadLetters` keeps what could not be handled. `JetStreamWrapper`
and what goes with it are the first design's faces of the same.
"""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on
from shared.messaging.connection.bus import Bus
from shared.messaging.consuming.delivery import Batch, Delivery
from shared.messaging.consuming.in_flight import MessageState
from shared.messaging.consuming.pipeline import CallNext, Middleware
from shared.messaging.consuming.retry import RetryPolicy
from shared.messaging.consuming.subscription import (
    BatchPolicy,
    State,
    SubscriberStatus,
    Subscription,
)
from shared.messaging.dead_letters.audit import Action, AuditPage, AuditRecord
from shared.messaging.dead_letters.dead_letter import DeadLetter, DeadLetterHead
from shared.messaging.dead_letters.edit import BodyChange, DeadLetterEdit
from shared.messaging.dead_letters.filter import DeadLetterFilter, DeadLetterGroup
from shared.messaging.dead_letters.store import DeadLetterOutcome, DeadLetterPage, DeadLetters
from shared.messaging.publisher import OutgoingMessage, PubAck, Publisher
from shared.messaging.publishing.middleware import PublishMiddleware, PublishNext
from shared.messaging.streams.facts import (
    ConsumerFacts,
    MonitoringFacts,
    ReplicaFacts,
    ServerFacts,
    StoredMessage,
    StreamFacts,
)
from shared.messaging.streams.inspection import Inspection
from shared.messaging.streams.store import StreamStore, find_consumers
from shared.messaging.subscriber import Subscriber
from shared.resilience import Circuit

if TYPE_CHECKING:
    from shared.legacy.messaging.dependencies import (
        DepKeys,
        ServiceDependencies,
    )
    from shared.legacy.messaging.domain_events import (
        DomainEventPublisher,
        DomainEventSubscriber,
    )
    from shared.legacy.messaging.event_publisher import (
        JetStreamEventPublisher,
    )
    from shared.legacy.messaging.event_subscriber import (
        JetStreamEventSubscriber,
    )
    from shared.legacy.messaging.jetstream_wrapper import (
        JetStreamWrapper,
    )

__all__ = [
    "Action",
    "AuditPage",
    "AuditRecord",
    "Batch",
    "BatchPolicy",
    "BodyChange",
    "Bus",
    "CallNext",
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
    "MessageState",
    "Middleware",
    "MonitoringFacts",
    "OutgoingMessage",
    "PubAck",
    "PublishMiddleware",
    "PublishNext",
    "Publisher",
    "ReplicaFacts",
    "RetryPolicy",
    "ServerFacts",
    "ServiceDependencies",
    "State",
    "StoredMessage",
    "StreamFacts",
    "StreamStore",
    "Subscriber",
    "SubscriberStatus",
    "Subscription",
    "find_consumers",
]

__getattr__, __dir__ = handed_on(__name__)
