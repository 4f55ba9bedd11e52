"""A path of the first design: what it names lives in `shared.legacy.events.context`."""

from shared.legacy.events.context import EventContext, EventContextManager, EventPayload, T

__all__ = ["EventContext", "EventContextManager", "EventPayload", "T"]
