"""The stream table under its first path; see `shared.events.streams`."""

from shared.events.streams import (
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
