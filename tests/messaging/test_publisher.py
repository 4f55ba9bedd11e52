"""Publishing into a stream of a real server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shared.errors import MessageBusError
from shared.messaging import Bus, OutgoingMessage, PubAck, Publisher
from shared.messaging.publishing.wire import header_block
from shared.testing import eventually

from .conftest import STREAM, SUBJECT, message

if TYPE_CHECKING:
    from shared.config import NatsSettings
    from shared.dev import NatsServer


async def test_a_stored_message_is_acknowledged_by_stream_and_sequence(bus: Bus) -> None:
    assert await bus.publisher.publish(message(1)) == PubAck("TESTS", 1, duplicate=False)
    stored = await bus.js.get_msg("TESTS", 1)
    assert (stored.subject, stored.data) == (SUBJECT, b"1")
    assert stored.headers == {"X-Number": "1", "Nats-Msg-Id": "m1"}


async def test_a_duplicate_is_told_and_not_stored(bus: Bus) -> None:
    await bus.publisher.publish(message(1))
    assert (await bus.publisher.publish(message(1))).duplicate
    assert (await bus.js.stream_info("TESTS")).state.messages == 1


async def test_many_are_stored_in_their_order(bus: Bus) -> None:
    acks = await bus.publisher.publish_all([message(n) for n in range(1000)])
    assert acks == [PubAck("TESTS", n + 1) for n in range(1000)]


@pytest.mark.parametrize("atomic", [False, True])
async def test_large_bodies_arrive_whole_between_small_ones_of_others(
    bus: Bus, *, atomic: bool
) -> None:
    # From some size on the client is given a body as it is, and what stands around it apart.
    sizes = (1, 8 * 1024 - 1, 8 * 1024, 8 * 1024 + 1, 100_000, 900_000)
    publish = bus.publisher.publish_atomic if atomic else bus.publisher.publish_all

    async def publish_all(task: int) -> None:
        bodies = [bytes([65 + task]) * size for size in sizes]
        await publish([message(10 * task + n, body=body) for n, body in enumerate(bodies)])

    sent_before = bus.client.stats["out_msgs"]
    await asyncio.gather(*(publish_all(task) for task in range(4)))
    assert bus.client.stats["out_msgs"] - sent_before >= 4 * len(sizes)
    stored = [await bus.js.get_msg("TESTS", n + 1) for n in range(4 * len(sizes))]
    for task in range(4):
        mine = [m for m in stored if int((m.headers or {})["X-Number"]) // 10 == task]
        assert [m.data for m in mine] == [bytes([65 + task]) * size for size in sizes]


async def test_no_more_than_the_window_is_on_its_way(bus: Bus) -> None:
    publisher = Publisher(bus, window=3)
    await publisher.publish(message(0))
    peak = 0
    assert publisher._sender._acks is not None
    expect = publisher._sender._acks.expect

    def watched(*args: object) -> object:
        nonlocal peak
        future = expect(*args)  # type: ignore[arg-type]
        assert publisher._sender._acks is not None
        peak = max(peak, len(publisher._sender._acks._expected))
        return future

    publisher._sender._acks.expect = watched  # type: ignore[assignment,method-assign]
    await asyncio.gather(
        *(publisher.publish_all([message(10 * t + n) for n in range(10)]) for t in range(1, 6))
    )
    assert peak == 3


async def test_an_error_stands_in_its_place_and_holds_nothing_up(bus: Bus) -> None:
    first, lost, last = await bus.publisher.publish_all(
        [message(1), message(2, subject="evt.nowhere.happened"), message(3)]
    )
    assert (first, last) == (PubAck("TESTS", 1), PubAck("TESTS", 2))
    assert isinstance(lost, MessageBusError)
    assert lost.retryable
    assert lost.details["subject"] == "evt.nowhere.happened"


async def test_a_message_too_large_is_refused_before_it_is_sent(bus: Bus) -> None:
    with pytest.raises(MessageBusError, match="is too large") as caught:
        await bus.publisher.publish(message(1, body=b"x" * bus.client.max_payload))
    assert not caught.value.retryable
    assert bus.connected
    assert await bus.publisher.publish(message(2)) == PubAck("TESTS", 1)


async def test_headers_count_too(bus: Bus) -> None:
    headers = {f"X-{n}": "v" * 1000 for n in range(100)}
    body = b"x" * (bus.client.max_payload - 50_000)
    with pytest.raises(MessageBusError, match="too large"):
        await bus.publisher.publish(OutgoingMessage(SUBJECT, body, headers, "m"))


def test_headers_stand_as_the_protocol_has_them() -> None:
    block = header_block("m1", {"A": "b", "Nats-Msg-Id": "other", "B": " \u00fc\r\nC: d "})
    assert block == "NATS/1.0\r\nNats-Msg-Id: m1\r\nA: b\r\nB: \u00fc  C: d\r\n\r\n".encode()


@pytest.mark.parametrize("name", ["", "a b", "a:b", "\u00fc", "a\r\nb"])
async def test_a_name_no_header_can_have_is_not_sent(bus: Bus, name: str) -> None:
    with pytest.raises(MessageBusError) as caught:
        await bus.publisher.publish(OutgoingMessage(SUBJECT, b"", {name: "v"}, "m"))
    assert not caught.value.retryable


@pytest.mark.parametrize("where", ["subject", "header", "id"])
async def test_half_a_character_is_not_sent_and_takes_no_place_in_the_window(
    bus: Bus, where: str
) -> None:
    half = "\ud800"  # as JSON may have it
    wrong = {
        "subject": OutgoingMessage(SUBJECT + half, b"", {}, "1"),
        "header": OutgoingMessage(SUBJECT, b"", {"X-Name": half}, "1"),
        "id": OutgoingMessage(SUBJECT, b"", {}, half),
    }[where]
    publisher = Publisher(bus, window=1)
    with pytest.raises(MessageBusError) as refused:
        await publisher.publish(wrong)
    assert not refused.value.retryable
    async with asyncio.timeout(25):
        assert await publisher.publish(message(1))


async def test_a_message_sent_on_does_not_carry_its_batch_along(bus: Bus) -> None:
    await bus.publisher.publish_atomic([message(1), message(2)])
    received = (await bus.js.get_msg("TESTS", 1)).headers or {}
    assert "Nats-Batch-Id" in received
    ack = await bus.publisher.publish(OutgoingMessage(SUBJECT, b"on", received, "on"))
    assert ack == PubAck("TESTS", 3)
    assert (await bus.js.get_msg("TESTS", 3)).headers == {"Nats-Msg-Id": "on", "X-Number": "1"}


async def test_what_cannot_be_sent_is_not_tried_again(bus: Bus) -> None:
    with pytest.raises(MessageBusError) as caught:
        await bus.publisher.publish(message(1, subject="evt.tests. spaced"))
    assert not caught.value.retryable


async def test_no_answer_in_time_is_a_retryable_error(
    own_bus: Bus, own_nats_server: NatsServer
) -> None:
    publisher = Publisher(own_bus, timeout_seconds=0.2)
    await publisher.publish(message(1))
    await own_nats_server.pause()
    with pytest.raises(MessageBusError, match="no answer in time") as caught:
        await publisher.publish(message(2))
    await own_nats_server.resume()
    assert caught.value.retryable
    again = await Publisher(own_bus).publish(message(2))
    assert (again.sequence, again.duplicate) == (2, True)


async def test_publishing_goes_on_after_a_restart(
    own_bus: Bus, own_nats_server: NatsServer
) -> None:
    await own_bus.publisher.publish(message(1))
    await own_nats_server.kill()
    await own_nats_server.restart()
    while True:
        try:
            ack = await own_bus.publisher.publish(message(2))
        except MessageBusError as error:
            assert error.retryable  # noqa: PT017 - whatever happens, trying again helps
        else:
            break
    assert ack.sequence == 2


async def test_an_acknowledgement_lost_with_its_connection_is_not_waited_for(
    own_bus: Bus, own_nats_server: NatsServer
) -> None:
    publisher = Publisher(own_bus, timeout_seconds=3600)
    await publisher.publish(message(1))
    await own_nats_server.pause()
    publishing = asyncio.create_task(publisher.publish(message(2)))
    await asyncio.sleep(0.05)
    await own_nats_server.kill()
    await own_nats_server.restart()
    async with asyncio.timeout(120):
        (outcome,) = await asyncio.gather(publishing, return_exceptions=True)
    if isinstance(outcome, MessageBusError):
        assert outcome.retryable
    else:
        # What had not left the client when the connection broke goes out on the next one.
        assert outcome == PubAck("TESTS", 2)


async def test_a_cancelled_publish_leaves_nothing_behind(bus: Bus) -> None:
    await bus.publisher.publish(message(0))
    publishing = asyncio.create_task(bus.publisher.publish_all([message(n) for n in range(1, 9)]))
    await asyncio.sleep(0)
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    assert bus.publisher._sender._acks is not None
    assert not bus.publisher._sender._acks._expected
    assert (await bus.publisher.publish(message(10))).stream == "TESTS"


def held_back(outcome: object) -> bool:
    return isinstance(outcome, MessageBusError) and outcome.details.get("held_back") is True


async def test_in_order_nothing_passes_what_failed(bus: Bus) -> None:
    first, lost, later = await bus.publisher.publish_all(
        [message(1), message(2, subject="evt.nowhere.happened"), message(3)], ordered=True
    )
    assert first == PubAck("TESTS", 1)
    assert isinstance(lost, MessageBusError)
    assert held_back(later)
    assert (await bus.js.stream_info("TESTS")).state.messages == 1


async def test_what_fails_holds_back_its_own_key_alone(bus: Bus) -> None:
    lost = message(2, subject="evt.nowhere.happened")
    outcomes = await bus.publisher.publish_all(
        [message(1), lost, message(3), message(4), message(5), message(6)],
        keys=["a", "a", "b", "a", "b", None],
    )
    assert [isinstance(outcome, PubAck) for outcome in outcomes] == [
        *(True, False, True, False, True, True)
    ]
    assert [held_back(outcome) for outcome in outcomes] == [False] * 3 + [True] + [False] * 2
    stored = [(await bus.js.get_msg("TESTS", n)).data for n in range(1, 5)]
    assert stored.index(b"3") < stored.index(b"5")


async def test_order_holds_over_a_cut_connection(own_bus: Bus, own_nats_server: NatsServer) -> None:
    publisher = Publisher(own_bus, timeout_seconds=0.2)
    messages = [message(n) for n in range(1_500)]
    left = messages

    async def cuts() -> None:
        for _ in range(3):
            await asyncio.sleep(0.2)
            await own_nats_server.kill()
            await own_nats_server.restart()

    cutting = asyncio.create_task(cuts())
    while left:
        outcomes = await publisher.publish_all(left, ordered=True)
        stored = [isinstance(outcome, PubAck) for outcome in outcomes]
        assert stored == sorted(stored, reverse=True)
        left = [m for m, done in zip(left, stored, strict=True) if not done]
    await cutting
    count = (await own_bus.js.stream_info("TESTS")).state.messages
    assert count == len(messages)
    bodies = [(await own_bus.js.get_msg("TESTS", n + 1)).data for n in range(0, count, 50)]
    assert bodies == [b"%d" % n for n in range(0, count, 50)]


async def test_a_short_outage_is_waited_out_by_all_together(
    own_bus: Bus, own_nats_server: NatsServer
) -> None:
    await own_bus.publisher.publish(message(0))
    await own_nats_server.kill()
    await eventually(lambda: not own_bus.connected)
    publishing = [asyncio.create_task(own_bus.publisher.publish(message(n))) for n in (1, 2, 3)]
    await own_nats_server.restart()
    assert await asyncio.gather(*publishing) == [PubAck("TESTS", n) for n in (2, 3, 4)]


async def test_in_a_long_outage_nobody_waits_for_long(
    own_bus: Bus, own_nats_server: NatsServer
) -> None:
    publisher = Publisher(own_bus, timeout_seconds=0.2)
    await own_nats_server.kill()
    await eventually(lambda: not own_bus.connected)
    async with asyncio.timeout(25):  # one after another they would take 100 s
        for number in range(500):
            with pytest.raises(MessageBusError, match="no connection") as caught:
                await publisher.publish(message(number))
            assert caught.value.retryable
    await own_nats_server.restart()
    await eventually(lambda: own_bus.connected)
    # What failed was not kept to be sent later.
    assert await publisher.publish(message(500)) == PubAck("TESTS", 1)


async def test_a_silent_server_is_not_waited_for_by_every_message(
    own_bus: Bus, own_nats_server: NatsServer
) -> None:
    publisher = Publisher(own_bus, window=10, timeout_seconds=0.2)
    await publisher.publish(message(0))
    await own_nats_server.pause()
    messages = [message(n) for n in range(1, 2_001)]
    sent = own_bus.client.stats["out_msgs"]
    outcomes = await publisher.publish_all(messages)
    assert all(isinstance(outcome, MessageBusError) for outcome in outcomes)
    assert own_bus.client.stats["out_msgs"] - sent < 20
    await own_nats_server.resume()
    while any(isinstance(outcome, MessageBusError) for outcome in outcomes):
        outcomes = await publisher.publish_all(messages)
    assert (await own_bus.js.stream_info("TESTS")).state.messages == 2_001


async def test_a_closed_bus_publishes_nothing_more(nats_settings: NatsSettings) -> None:
    async with Bus(nats_settings, name="tests") as bus:
        await bus.ensure_stream(STREAM)
    with pytest.raises(MessageBusError, match="the message bus is closed"):
        await bus.publisher.publish(message(1))
    outcomes = await bus.publisher.publish_atomic([message(1), message(2)])
    assert all(isinstance(outcome, MessageBusError) for outcome in outcomes)
