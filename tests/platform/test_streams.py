"""The platform's ten streams, and which service publishes to which."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import CONVENTION
from shared.events.catalog import CatalogCommands, CatalogEvents
from shared.events.credit import CreditEvents
from shared.events.notification import NotificationCommands, NotificationEvents
from shared.events.scheduler import SchedulerCommands, SchedulerEvents
from shared.platform.declared import CONTRACTS
from shared.platform.streams import (
    SERVICE_STREAM_MAP,
    STREAMS,
    Streams,
    get_stream_for_service,
    get_stream_from_subject,
    get_stream_subjects,
)
from tests.events.strategies import PROOF

CATALOGUES = {
    CatalogCommands: 5,
    CatalogEvents: 6,
    CreditEvents: 4,
    NotificationCommands: 2,
    NotificationEvents: 3,
    SchedulerCommands: 7,
    SchedulerEvents: 9,
}


def constants(catalogue: type) -> list[str]:
    return [value for name, value in vars(catalogue).items() if name.isupper()]


DECLARED = [subject for catalogue in CATALOGUES for subject in constants(catalogue)]
FILTERS = {stream: get_stream_subjects(stream) for stream in Streams}
DOMAINS = sorted({pattern.split(".")[1] for patterns in FILTERS.values() for pattern in patterns})


def matches(pattern: str, subject: str) -> bool:
    """As a NATS server matches: ``*`` is one token, ``>`` is one or more."""
    regex = re.escape(pattern).replace(r"\*", r"[^.]+").replace(">", r".+")
    return re.fullmatch(regex, subject) is not None


def holders(subject: str) -> list[Streams]:
    return [
        stream
        for stream, filters in FILTERS.items()
        if any(matches(pattern, subject) for pattern in filters)
    ]


@pytest.mark.parametrize(("catalogue", "count"), CATALOGUES.items())
def test_nothing_is_missing_from_the_catalogues(catalogue: type, count: int) -> None:
    assert len(constants(catalogue)) == count


@pytest.mark.parametrize("subject", DECLARED)
def test_every_declared_subject_has_exactly_one_stream_whose_filters_match(subject: str) -> None:
    assert holders(subject) == [get_stream_from_subject(subject)]


def test_a_contract_of_the_platform_carries_its_stream() -> None:
    for contract in CONTRACTS:
        assert CONVENTION.of(contract).name == get_stream_from_subject(contract.subject)


def test_every_declared_subject_has_exactly_one_contract() -> None:
    counted = Counter(contract.subject for contract in CONTRACTS)
    assert counted == Counter(DECLARED)


def test_no_two_streams_overlap() -> None:
    # Every filter is a literal "<kind>.<domain>" and ">", so filters overlap only if equal.
    filters = [pattern for patterns in FILTERS.values() for pattern in patterns]
    assert all(re.fullmatch(r"(cmd|evt)\.[a-z_]+\.>", pattern) for pattern in filters)
    assert len(filters) == len(set(filters))


@PROOF
@given(
    st.sampled_from(["cmd", "evt"]),
    st.sampled_from(
        [pattern.split(".")[1] for patterns in FILTERS.values() for pattern in patterns]
    ),
    st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True), min_size=1, max_size=6),
)
def test_a_subject_of_any_depth_reaches_one_stream(kind: str, domain: str, rest: list[str]) -> None:
    subject = ".".join([kind, domain, *rest])
    assert holders(subject) == [get_stream_from_subject(subject)]


@pytest.mark.parametrize(
    ("subject", "stream"),
    [
        ("evt.order.updated", Streams.WEBHOOKS),
        ("evt.account.created", Streams.WEBHOOKS),
        ("evt.webhook.received", Streams.WEBHOOKS),
        ("evt.webhooks.received", Streams.WEBHOOKS),
        ("evt.subscription.renewed", Streams.BILLING),
        ("evt.merchant.created", Streams.MERCHANT),
        ("evt.notification.email.sent", Streams.NOTIFICATION),
        ("cmd.scheduler.schedule.create", Streams.SCHEDULER),
        ("cmd.ai_processing.item.describe", Streams.AI_PROCESSING),
        ("evt.notification.email.*", Streams.NOTIFICATION),
        ("evt.notification.*.sent", Streams.NOTIFICATION),
        ("cmd.catalog.>", Streams.CATALOG),
    ],
)
def test_the_domain_decides_the_stream(subject: str, stream: Streams) -> None:
    assert get_stream_from_subject(subject) is stream


@pytest.mark.parametrize(
    "subject",
    [
        "",
        "evt",
        "evt.order",
        "evt.order.",
        "evt..updated",
        "evt.order..updated",
        "evt.order.>.x",
        "evt.order.a b",
        "evt.order.updated\n",
        "evt.*.updated",
        "evt.>",
        "dlq.order.updated",
        "EVT.order.updated",
        "evt.weather.changed",
    ],
)
def test_a_subject_without_a_stream_is_refused(subject: str) -> None:
    with pytest.raises(ValueError, match=r"is not a subject|no stream|reaches beyond"):
        get_stream_from_subject(subject)


def test_a_stream_holds_the_commands_and_events_of_its_domains() -> None:
    assert get_stream_subjects(Streams.CREDIT) == ["cmd.credit.>", "evt.credit.>"]
    definition = STREAMS["BILLING"]
    assert definition.name == "BILLING"
    assert definition.subjects == (
        "cmd.billing.>",
        "evt.billing.>",
        "cmd.subscription.>",
        "evt.subscription.>",
    )
    assert definition.max_age_seconds == 604_800
    assert definition.max_messages_per_subject == 100_000


def test_a_stream_may_be_asked_for_by_its_name() -> None:
    assert get_stream_subjects("CREDIT") == get_stream_subjects(Streams.CREDIT)  # type: ignore[arg-type]
    assert Streams.CREDIT == "CREDIT"


def test_every_service_has_its_stream() -> None:
    assert len(SERVICE_STREAM_MAP) == 12
    assert get_stream_for_service("credit-service") is Streams.CREDIT
    assert get_stream_for_service("profile-ai-selfie") is Streams.AI_PROCESSING
    with pytest.raises(ValueError, match=r"'weather-service' has no stream; known: analytics"):
        get_stream_for_service("weather-service")
