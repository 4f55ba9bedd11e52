"""A path of the first design; what it names lives in `shared.platform` and `shared.legacy`."""

from shared.legacy.events.wrapper import EventWrapper, TData
from shared.platform.streams import Streams

__all__ = ["EventWrapper", "Streams", "TData"]
