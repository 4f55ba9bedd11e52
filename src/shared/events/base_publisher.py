"""A path of the first design: what it names lives in `shared.legacy.messaging.domain_events`."""

from shared.legacy.messaging.domain_events import DomainEventPublisher

__all__ = ["DomainEventPublisher"]
