"""A path of the first design; `shared.legacy.table` says where its names live."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.events.wrapper import (
        EventWrapper,
        TData,
    )
    from shared.platform.streams import (
        Streams,
    )

__all__ = [
    "EventWrapper",
    "Streams",
    "TData",
]

__getattr__, __dir__ = handed_on(__name__)
