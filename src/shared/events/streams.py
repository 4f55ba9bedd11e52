"""Streams, and the one table that says which subject belongs to which.

A subject reads ``cmd.<domain>.<...>`` (please do) or ``evt.<domain>.<...>`` (this happened). Its
second token alone decides the stream, so two streams can never claim the same subject.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

WEEK_SECONDS = 7 * 24 * 60 * 60

# NATS allows any printable text between dots; a narrower alphabet keeps subjects usable as durable
# names, metric labels and file names. The last token of a filter may be ">", any later one "*".
_TOKEN = r"[A-Za-z0-9_-]+"  # noqa: S105 - a part of a subject, not a secret
_LITERAL = re.compile(rf"(?:cmd|evt)(?:\.{_TOKEN}){{2,}}")
_FILTER = re.compile(rf"(?:cmd|evt)\.({_TOKEN})(?:\.(?:{_TOKEN}|\*))*\.(?:{_TOKEN}|\*|>)")


class Streams(StrEnum):
    """The streams of the platform: one for each domain."""

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


_DOMAIN_STREAMS: Mapping[str, Streams] = MappingProxyType(
    {
        **{stream.lower(): stream for stream in Streams},
        "webhook": Streams.WEBHOOKS,
        "order": Streams.WEBHOOKS,
        "account": Streams.WEBHOOKS,
        "subscription": Streams.BILLING,
    },
)

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


@dataclass(frozen=True, slots=True)
class StreamDefinition:
    """What a stream catches and how long it keeps it.

    Storage (file), retention (limits) and roll-up headers are the same for all; the dedupe window
    and the number of replicas come from the settings of whoever creates the stream.
    """

    name: str
    subjects: tuple[str, ...]
    max_age_seconds: float = WEEK_SECONDS
    max_messages_per_subject: int | None = 100_000


def stream_definition(stream: Streams) -> StreamDefinition:
    """Return a stream's name and subject filters: commands and events of each of its domains."""
    domains = [domain for domain, owner in _DOMAIN_STREAMS.items() if owner is stream]
    return StreamDefinition(
        name=stream.value,
        subjects=tuple(f"{kind}.{domain}.>" for domain in domains for kind in ("cmd", "evt")),
    )


def stream_for_subject(subject: str) -> Streams:
    """Return the one stream that holds a subject, or that a subscriber's filter reads from.

    A filter may hold wildcards after its domain (``evt.notification.email.*``, ``cmd.catalog.>``).

    Raises:
        ValueError: the subject is malformed, or no stream holds its domain.

    """
    match = _FILTER.fullmatch(subject)
    if match is None:
        raise ValueError(f"{subject!r} is no subject: expected cmd.<domain>.<...> or evt.<...>")
    stream = _DOMAIN_STREAMS.get(match[1])
    if stream is None:
        known = ", ".join(sorted(_DOMAIN_STREAMS))
        raise ValueError(f"no stream holds {subject!r}: domain {match[1]!r} is none of {known}")
    return stream


def check_subject(subject: str) -> str:
    """Return the subject of a message unchanged.

    Raises:
        ValueError: it is not ``cmd.<domain>.<...>`` or ``evt.<domain>.<...>``, or has a wildcard.

    """
    if _LITERAL.fullmatch(subject) is None:
        raise ValueError(
            f"{subject!r} is no subject of a message: expected cmd.<domain>.<...> or "
            "evt.<domain>.<...> in letters, digits, '-' and '_'",
        )
    return subject


def get_stream_subjects(stream: Streams) -> list[str]:
    """Return the subject filters of a stream, e.g. ``["cmd.credit.>", "evt.credit.>"]``."""
    return list(stream_definition(Streams(stream)).subjects)


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


get_stream_from_subject = stream_for_subject
