"""`Streams` and `EventWrapper` under their first path."""

from shared.events.streams import Streams
from shared.events.wrapper import EventWrapper, TData

__all__ = ["EventWrapper", "Streams", "TData"]
