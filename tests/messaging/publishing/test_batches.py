"""Atomic batches on a real server: stored whole or not at all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from nats.js.api import PersistMode, StreamConfig

from shared.errors import MessageBusError
from shared.events import StreamDefinition
from shared.messaging import Bus, OutgoingMessage, PubAck
from shared.platform.streams import STREAMS
from tests.messaging.conftest import message

if TYPE_CHECKING:
    import pytest

    from shared.dev import NatsServer


async def stored(bus: Bus, stream: str = "TESTS") -> int:
    return (await bus.js.stream_info(stream)).state.messages


def all_refused(outcomes: list[PubAck | MessageBusError]) -> bool:
    return all(
        isinstance(outcome, MessageBusError) and outcome.details.get("batch_refused") is True
        for outcome in outcomes
    )


async def test_each_message_of_a_batch_has_the_sequence_it_was_stored_under(bus: Bus) -> None:
    await bus.publisher.publish(message(0))
    acks = await bus.publisher.publish_atomic([message(n) for n in range(1, 4)])
    assert acks == [PubAck("TESTS", n) for n in (2, 3, 4)]
    for number in (1, 2, 3):
        assert (await bus.js.get_msg("TESTS", number + 1)).data == b"%d" % number


async def test_no_message_is_no_work_and_one_alone_needs_no_batch(bus: Bus) -> None:
    assert await bus.publisher.publish_atomic([]) == []
    assert await bus.publisher.publish_atomic([message(1)]) == [PubAck("TESTS", 1)]
    assert await bus.publisher.publish_atomic([message(1)]) == [PubAck("TESTS", 1, duplicate=True)]


async def test_more_than_the_server_takes_at_once_is_split(bus: Bus) -> None:
    acks = await bus.publisher.publish_atomic([message(n) for n in range(2_001)])
    assert acks == [PubAck("TESTS", n + 1) for n in range(2_001)]


async def test_a_known_id_refuses_its_batch_and_leaves_the_others_to_be_sent(bus: Bus) -> None:
    await bus.publisher.publish(message(2))
    messages = [message(n) for n in (1, 2, 3)]
    outcomes = await bus.publisher.publish_atomic(messages)
    assert all_refused(outcomes)
    assert "duplicate message id" in str(outcomes[0])
    assert await stored(bus) == 1
    assert await bus.publisher.publish_all(messages) == [
        PubAck("TESTS", 2),
        PubAck("TESTS", 1, duplicate=True),
        PubAck("TESTS", 3),
    ]


async def test_one_id_twice_in_a_batch_refuses_it(bus: Bus) -> None:
    assert all_refused(await bus.publisher.publish_atomic([message(1), message(1)]))
    assert await stored(bus) == 0


async def test_after_a_refused_batch_the_later_ones_of_its_stream_are_not_sent(bus: Bus) -> None:
    await bus.ensure_stream(STREAMS["CREDIT"])
    await bus.publisher.publish(message(5))
    elsewhere = [message(n, subject="evt.credit.spent") for n in (1, 2)]
    outcomes = await bus.publisher.publish_atomic(
        [elsewhere[0], *(message(n) for n in range(1_500)), elsewhere[1]]
    )
    assert (outcomes[0], outcomes[-1]) == (PubAck("CREDIT", 1), PubAck("CREDIT", 2))
    assert all_refused(outcomes[1:-1])
    assert await stored(bus) == 1


async def test_a_message_too_large_keeps_its_batch_from_being_sent(bus: Bus) -> None:
    outcomes = await bus.publisher.publish_atomic(
        [message(1), message(2, body=b"x" * bus.client.max_payload)]
    )
    assert all_refused(outcomes)
    assert "too large" in str(outcomes[0])
    assert await stored(bus) == 0


async def test_a_stream_that_takes_no_batches_says_so(bus: Bus) -> None:
    await bus.js.add_stream(StreamConfig(name="PLAIN", subjects=["evt.plain.>"]))
    outcomes = await bus.publisher.publish_atomic(
        [message(n, subject="evt.plain.sailing") for n in (1, 2)]
    )
    assert all_refused(outcomes)
    assert "atomic publish is disabled" in str(outcomes[0])


async def test_a_server_of_before_batches_is_not_asked(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus.client._current_server, "server_version", "2.11.9")
    outcomes = await bus.publisher.publish_atomic([message(1), message(2)])
    assert all_refused(outcomes)
    assert "2.12" in str(outcomes[0])
    await bus.ensure_stream(StreamDefinition("OLDER", ("evt.older.>",)))
    assert not (await bus.js.stream_info("OLDER")).config.allow_atomic


async def test_where_no_stream_is_nobody_refuses(bus: Bus) -> None:
    outcomes = await bus.publisher.publish_atomic(
        [message(n, subject="evt.nowhere.happened") for n in (1, 2)]
    )
    for outcome in outcomes:
        assert isinstance(outcome, MessageBusError)
        assert outcome.retryable
        assert "batch_refused" not in outcome.details


async def test_a_stream_that_stores_later_is_left_without_batches(bus: Bus) -> None:
    await bus.js.add_stream(
        StreamConfig(name="CREDIT", subjects=["evt.credit.>"], persist_mode=PersistMode.ASYNC)
    )
    await bus.ensure_stream(STREAMS["CREDIT"])
    config = (await bus.js.stream_info("CREDIT")).config
    assert (config.persist_mode, bool(config.allow_atomic)) == (PersistMode.ASYNC, False)


async def test_of_a_batch_cut_off_all_is_stored_or_nothing(
    own_bus: Bus, own_nats_server: NatsServer
) -> None:
    publisher = own_bus.publisher
    await publisher.publish(message(0))
    messages = [message(n, body=b"x" * 10_000) for n in range(1, 501)]
    publishing = asyncio.create_task(publisher.publish_atomic(messages))
    await asyncio.sleep(0.01)
    await own_nats_server.kill()
    await own_nats_server.restart()
    outcomes = await publishing
    again: list[OutgoingMessage] = messages
    while any(isinstance(outcome, MessageBusError) for outcome in outcomes):
        assert len({type(outcome) for outcome in outcomes}) == 1
        assert await stored(own_bus) in {1, 501}
        outcomes = await publisher.publish_atomic(again)
        if all_refused(outcomes):
            outcomes = await publisher.publish_all(again)
    assert await stored(own_bus) == 501
