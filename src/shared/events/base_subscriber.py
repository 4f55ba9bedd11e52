"""A path of the first design: what it names lives in `shared.legacy.messaging.domain_events`."""

from shared.legacy.messaging.domain_events import DomainEventSubscriber

__all__ = ["DomainEventSubscriber"]
