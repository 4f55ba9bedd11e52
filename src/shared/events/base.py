"""A path of the first design; `shared.legacy.table` says where its names live."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.events.streams import (
        Streams,
    )
    from shared.legacy.events.wrapper import (
        EventWrapper,
        TData,
    )

__all__ = [
    "EventWrapper",
    "Streams",
    "TData",
]

__getattr__, __dir__ = handed_on(__name__)
