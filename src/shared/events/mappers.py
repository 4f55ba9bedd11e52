"""A path of the first design: what it names lives in `shared.platform.streams`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.platform.streams import (
        SERVICE_STREAM_MAP,
        get_stream_for_service,
        get_stream_from_subject,
        get_stream_subjects,
    )

__all__ = [
    "SERVICE_STREAM_MAP",
    "get_stream_for_service",
    "get_stream_from_subject",
    "get_stream_subjects",
]

__getattr__, __dir__ = handed_on(__name__)
