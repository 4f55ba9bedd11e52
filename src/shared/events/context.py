"""A path of the first design: what it names lives in `shared.legacy.events.context`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.events.context import (
        EventContext,
        EventContextManager,
        EventPayload,
        T,
    )

__all__ = [
    "EventContext",
    "EventContextManager",
    "EventPayload",
    "T",
]

__getattr__, __dir__ = handed_on(__name__)
