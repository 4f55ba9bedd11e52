"""Streams on a real server: created, widened, never narrowed."""

from __future__ import annotations

import asyncio
import inspect
import logging
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.js.api import (
    DiscardPolicy,
    PersistMode,
    RePublish,
    RetentionPolicy,
    StorageType,
    StoreCompression,
    StreamConfig,
    StreamConsumerLimits,
    StreamSource,
    SubjectTransform,
)

from shared.errors import MessageBusError
from shared.events import StreamDefinition
from shared.events.streams import covers, united
from shared.messaging import Bus
from shared.messaging.streams.diff import _LEFT, _REFUSED, _merged
from shared.platform.streams import STREAMS
from tests.messaging.conftest import STREAM, message

if TYPE_CHECKING:
    from shared.config import NatsSettings

WEEK = 7 * 24 * 3600


async def test_a_stream_is_created_as_the_table_says(bus: Bus) -> None:
    await bus.ensure_stream(STREAMS["WEBHOOKS"])
    config = (await bus.js.stream_info("WEBHOOKS")).config
    assert set(config.subjects or ()) >= {"cmd.webhook.>", "evt.order.>", "evt.account.>"}
    assert (config.storage, config.retention) == (StorageType.FILE, RetentionPolicy.LIMITS)
    assert (config.max_age, config.max_msgs_per_subject) == (WEEK, 100_000)
    assert (config.duplicate_window, config.num_replicas) == (120, 1)
    assert config.allow_rollup_hdrs
    assert config.allow_msg_ttl
    assert config.allow_msg_schedules
    assert config.allow_atomic


async def test_the_dedupe_window_comes_from_the_settings(nats_settings: NatsSettings) -> None:
    settings = nats_settings.model_copy(update={"dedupe_window_seconds": 5.0})
    async with Bus(settings, name="tests") as bus:
        await bus.ensure_stream(STREAM)
        assert (await bus.js.stream_info("TESTS")).config.duplicate_window == 5


async def test_a_narrower_stream_is_widened_and_keeps_its_messages(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    await bus.js.add_stream(name="CREDIT", subjects=["cmd.credit.*", "evt.credit.*", "old.credit"])
    await bus.publisher.publish(message(1, subject="evt.credit.spent"))
    with caplog.at_level(logging.INFO):
        await bus.ensure_stream(STREAMS["CREDIT"])
    info = await bus.js.stream_info("CREDIT")
    assert set(info.config.subjects or ()) == {"cmd.credit.>", "evt.credit.>", "old.credit"}
    assert info.state.messages == 1
    (record,) = [r for r in caplog.records if r.message == "stream CREDIT changed"]
    assert "evt.credit.>" in vars(record)["changes"]["subjects"]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        await bus.ensure_stream(STREAMS["CREDIT"])
    assert not caplog.records


async def test_wider_limits_stay(bus: Bus) -> None:
    await bus.js.add_stream(name="CREDIT", subjects=["evt.credit.>"], max_age=2 * WEEK)
    await bus.ensure_stream(STREAMS["CREDIT"])
    config = (await bus.js.stream_info("CREDIT")).config
    assert (config.max_age, config.max_msgs_per_subject) == (2 * WEEK, -1)


async def test_narrower_limits_are_widened(bus: Bus) -> None:
    await bus.js.add_stream(
        name="CREDIT", subjects=["evt.credit.>"], max_age=60, max_msgs_per_subject=5
    )
    await bus.ensure_stream(STREAMS["CREDIT"])
    config = (await bus.js.stream_info("CREDIT")).config
    assert (config.max_age, config.max_msgs_per_subject) == (WEEK, 100_000)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"storage": StorageType.MEMORY}, "storage is memory, wanted file"),
        ({"retention": RetentionPolicy.WORK_QUEUE}, "retention is workqueue, wanted limits"),
    ],
)
async def test_a_change_that_would_lose_messages_is_refused(
    bus: Bus, made: dict[str, object], told: str
) -> None:
    await bus.js.add_stream(StreamConfig(name="CREDIT", subjects=["evt.credit.*"]), **made)
    with pytest.raises(MessageBusError, match=told) as caught:
        await bus.ensure_stream(STREAMS["CREDIT"])
    assert not caught.value.retryable
    assert (await bus.js.stream_info("CREDIT")).config.subjects == ["evt.credit.*"]


@pytest.mark.parametrize(
    ("made", "field", "advice"),
    [
        ({"discard": DiscardPolicy.NEW}, "discard", "--discard=old"),
        ({"discard": DiscardPolicy.NEW}, "allow_msg_schedules", "has no schedules"),
        ({"max_consumers": 1}, "max_consumers", "--max-consumers=-1"),
        ({"deny_purge": True}, "allow_rollup_hdrs", "no roll-ups"),
        ({"deny_delete": True}, "deny_delete", "never takes it back"),
        ({"persist_mode": PersistMode.ASYNC}, "persist_mode", "before it stores"),
        ({"persist_mode": PersistMode.ASYNC}, "allow_atomic", "takes no batches"),
        ({"sources": [StreamSource(name="ELSEWHERE")]}, "sources", "nats stream edit CREDIT"),
        ({"republish": RePublish(src=">", dest="told.>")}, "republish", "listen there"),
        (
            {"subject_transform": SubjectTransform(src="evt.credit.a", dest="evt.credit.b")},
            "subject_transform",
            "the subject that is stored",
        ),
        (
            {"consumer_limits": StreamConsumerLimits(max_ack_pending=5)},
            "consumer_limits",
            "consumers that ask for more",
        ),
        (
            {"subject_delete_marker_ttl": 60, "allow_msg_ttl": True, "allow_rollup_hdrs": True},
            "subject_delete_marker_ttl",
            "without a body",
        ),
    ],
)
async def test_what_others_may_have_meant_is_left_and_told(
    bus: Bus, caplog: pytest.LogCaptureFixture, made: dict[str, object], field: str, advice: str
) -> None:
    await bus.js.add_stream(StreamConfig(name="CREDIT", subjects=["evt.credit.>"]), **made)
    with caplog.at_level(logging.WARNING):
        await bus.ensure_stream(STREAMS["CREDIT"])
    config = (await bus.js.stream_info("CREDIT")).config
    assert set(config.subjects or ()) >= {"cmd.credit.>", "evt.credit.>"}
    assert all(getattr(config, name) == value for name, value in made.items())
    (record,) = [r for r in caplog.records if "is left so" in r.message]
    told = vars(record)["left"][field]
    assert told.startswith(f"{field} is ")
    assert "wanted" in told
    assert advice in told
    assert told in record.message


@pytest.mark.parametrize(
    ("made", "asked", "field"),
    [
        ({"no_ack": True}, {}, "no_ack"),
        ({}, {"discard": DiscardPolicy.NEW}, "discard"),
        ({}, {"compression": StoreCompression.S2}, "compression"),
        ({}, {"allow_direct": True}, "allow_direct"),
        ({}, {"metadata": {"owner": "credit"}}, "metadata"),
        ({}, {"description": "credits"}, "description"),
    ],
)
async def test_what_harms_nobody_is_taken_over(
    bus: Bus, made: dict[str, object], asked: dict[str, object], field: str
) -> None:
    await bus.js.add_stream(StreamConfig(name="CREDIT", subjects=["evt.credit.>"]), **made)
    await bus.ensure_stream_config(StreamConfig(name="CREDIT", subjects=["evt.credit.>"], **asked))  # type: ignore[arg-type]
    is_, wanted = getattr((await bus.js.stream_info("CREDIT")).config, field), asked.get(field)
    assert is_.items() >= wanted.items() if isinstance(wanted, dict) else is_ == (wanted or False)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"allow_msg_counter": True, "allow_direct": True}, "a stream of counters takes nothing"),
        (
            {"subjects": None, "mirror": StreamSource(name="ELSEWHERE")},
            "a mirror takes no messages",
        ),
        ({"sealed": True}, "a sealed stream takes no messages for ever"),
    ],
)
async def test_a_stream_that_takes_no_messages_is_refused(
    bus: Bus, made: dict[str, object], told: str
) -> None:
    sealed = made.get("sealed")
    config = StreamConfig(name="CREDIT", subjects=["evt.credit.*"])
    created = await bus.js.add_stream(config, **({} if sealed else made))
    if sealed:
        await bus.js.update_stream(replace(created.config, sealed=True))
    with pytest.raises(MessageBusError, match=told) as caught:
        await bus.ensure_stream(STREAMS["CREDIT"])
    assert not caught.value.retryable


def test_every_field_of_a_stream_has_its_place() -> None:
    is_ = StreamConfig(name="T", subjects=["t.>"])
    decided = {*_LEFT, *_REFUSED, *inspect.getsource(_merged).split("=")}
    named = {word.split()[-1].strip("(,") for word in decided if word.split()}
    assert {field.name for field in fields(is_)} - named == {"name"}


async def test_a_subject_of_another_stream_is_refused(bus: Bus) -> None:
    with pytest.raises(MessageBusError, match="stream TESTS on the server takes") as caught:
        await bus.ensure_stream(StreamDefinition("OTHER", ("evt.tests.special",)))
    assert not caught.value.retryable


async def test_ten_services_at_once_do_no_harm(nats_settings: NatsSettings) -> None:
    async with Bus(nats_settings, name="before") as first:
        await first.js.add_stream(name="BILLING", subjects=["evt.billing.*"])
    definitions = [
        StreamDefinition("BILLING", ("evt.billing.>", f"evt.extra{n % 3}.>")) for n in range(10)
    ]

    async def start(definition: StreamDefinition) -> None:
        async with Bus(nats_settings, name="service") as bus:
            await bus.ensure_stream(definition)
            await bus.ensure_stream(STREAMS["CREDIT"])

    await asyncio.gather(*map(start, definitions))
    async with Bus(nats_settings, name="after") as last:
        subjects = (await last.js.stream_info("BILLING")).config.subjects or []
        assert set(subjects) == {"evt.billing.>", *(f"evt.extra{n}.>" for n in range(3))}


TOKENS = st.lists(st.sampled_from("ab"), min_size=1, max_size=4)
FILTERS = st.builds(
    lambda tokens, tail: ".".join([*tokens, *tail]),
    st.lists(st.sampled_from("ab*"), min_size=1, max_size=3),
    st.sampled_from([[], [">"]]),
)


@given(wide=FILTERS, narrow=FILTERS, subject=TOKENS.map(".".join))
def test_what_covers_catches_all_the_other_catches(wide: str, narrow: str, subject: str) -> None:
    if covers(wide, narrow) and covers(narrow, subject):
        assert covers(wide, subject)


@given(st.lists(FILTERS, max_size=6), TOKENS.map(".".join))
def test_uniting_neither_adds_nor_loses_a_subject(filters: list[str], subject: str) -> None:
    caught = any(covers(f, subject) for f in filters)
    assert any(covers(f, subject) for f in united(filters)) == caught
