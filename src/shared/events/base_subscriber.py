"""`DomainEventSubscriber` under its first path; it lives with the wires, in `shared.messaging`."""

from shared.messaging.domain import DomainEventSubscriber

__all__ = ["DomainEventSubscriber"]
