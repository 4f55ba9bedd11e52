"""A path of the first design; `shared.legacy.table` says where its names live."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.messaging.jetstream_wrapper import (
        JetStreamWrapper,
        T,
    )

__all__ = [
    "JetStreamWrapper",
    "T",
]

__getattr__, __dir__ = handed_on(__name__)
