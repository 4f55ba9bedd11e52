"""The platform's streams: which domains each of them holds, and which service publishes to it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from shared.events.contract import Contract
from shared.events.streams import StreamDefinition, StreamTable, check_filter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.events.envelope import P

__all__ = [
    "SERVICE_STREAM_MAP",
    "STREAMS",
    "Streams",
    "declare",
    "get_stream_for_service",
    "get_stream_from_subject",
    "get_stream_subjects",
]


class Streams(StrEnum):
    """The streams of the platform, by name."""

    CATALOG = "CATALOG"
    MERCHANT = "MERCHANT"
    BILLING = "BILLING"
    CREDIT = "CREDIT"
    PROFILE = "PROFILE"
    NOTIFICATION = "NOTIFICATION"
    ANALYTICS = "ANALYTICS"
    WEBHOOKS = "WEBHOOKS"
    SCHEDULER = "SCHEDULER"
    AI_PROCESSING = "AI_PROCESSING"


# Domains whose stream has another name than they have.
_MORE_DOMAINS: Mapping[Streams, tuple[str, ...]] = {
    Streams.BILLING: ("subscription",),
    Streams.WEBHOOKS: ("webhook", "order", "account"),
}

STREAMS = StreamTable(
    StreamDefinition(
        stream.value,
        tuple(
            f"{kind}.{domain}.>"
            for domain in (stream.lower(), *_MORE_DOMAINS.get(stream, ()))
            for kind in ("cmd", "evt")
        ),
    )
    for stream in Streams
)
"""The platform's ten streams: ``Service(..., streams=STREAMS)``."""

SERVICE_STREAM_MAP: dict[str, Streams] = {
    "analytics-service": Streams.ANALYTICS,
    "billing-service": Streams.BILLING,
    "catalog-ai-service": Streams.AI_PROCESSING,
    "catalog-connector": Streams.CATALOG,
    "catalog-service": Streams.CATALOG,
    "credit-service": Streams.CREDIT,
    "merchant-service": Streams.MERCHANT,
    "notification-service": Streams.NOTIFICATION,
    "profile-ai-selfie": Streams.AI_PROCESSING,
    "profile-service": Streams.PROFILE,
    "scheduler-service": Streams.SCHEDULER,
    "webhook-service": Streams.WEBHOOKS,
}


def get_stream_subjects(stream: Streams) -> list[str]:
    """Return the subject filters of a stream, e.g. ``["cmd.credit.>", "evt.credit.>"]``."""
    return list(STREAMS[Streams(stream).value].subjects)


def get_stream_for_service(service_name: str) -> Streams:
    """Return the stream that a service publishes to.

    Raises:
        ValueError: the service is not in `SERVICE_STREAM_MAP`.

    """
    try:
        return SERVICE_STREAM_MAP[service_name]
    except KeyError:
        known = ", ".join(SERVICE_STREAM_MAP)
        raise ValueError(f"service {service_name!r} has no stream; known: {known}") from None


def get_stream_from_subject(subject: str) -> Streams:
    """Return the one stream that holds a subject, or that a subscriber's filter reads from.

    A filter may hold wildcards after its domain (``evt.notification.email.*``, ``cmd.catalog.>``).

    Raises:
        ValueError: the subject is malformed, or none of the platform's streams holds its domain.

    """
    found = STREAMS.holding(check_filter(subject)).name
    if found not in Streams.__members__:
        known = ", ".join(
            subject.removesuffix(".>") for each in STREAMS for subject in each.subjects
        )
        raise ValueError(f"no stream of the platform holds {subject!r}; they hold {known}")
    return Streams(found)


def declare(subject: str, payload: type[P]) -> Contract[P]:
    """Return a contract that carries its stream, so that services need not name the table."""
    return Contract(subject, payload, stream=STREAMS.holding(subject))
