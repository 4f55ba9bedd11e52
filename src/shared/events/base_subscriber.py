"""A path of the first design: what it names lives in `shared.legacy.messaging.domain_events`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.messaging.domain_events import (
        DomainEventSubscriber,
    )

__all__ = [
    "DomainEventSubscriber",
]

__getattr__, __dir__ = handed_on(__name__)
