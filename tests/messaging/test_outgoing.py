"""Publishing into a stream of a real server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shared.errors import MessageBusError
from shared.messaging import Bus, OutgoingMessage, PubAck, Publisher
from shared.messaging.outgoing import headers_size

from .conftest import SUBJECT, message

if TYPE_CHECKING:
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


async def test_no_more_than_the_window_is_on_its_way(bus: Bus) -> None:
    publisher = Publisher(bus, window=3)
    await publisher.publish(message(0))
    peak = 0
    assert publisher._acks is not None
    expect = publisher._acks.expect

    def watched(*args: object) -> object:
        nonlocal peak
        future = expect(*args)  # type: ignore[arg-type]
        assert publisher._acks is not None
        peak = max(peak, len(publisher._acks._expected))
        return future

    publisher._acks.expect = watched  # type: ignore[assignment,method-assign]
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


def test_the_size_of_headers_is_that_on_the_wire() -> None:
    assert headers_size({"A": "b", "Ü": "ü"}) == len("NATS/1.0\r\nA: b\r\nÜ: ü\r\n\r\n".encode())


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
    async with asyncio.timeout(25):
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
    assert bus.publisher._acks is not None
    assert not bus.publisher._acks._expected
    assert (await bus.publisher.publish(message(10))).stream == "TESTS"
