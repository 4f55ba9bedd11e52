"""`DomainEventPublisher` under its first path; it lives with the wires, in `shared.messaging`."""

from shared.messaging.domain import DomainEventPublisher

__all__ = ["DomainEventPublisher"]
