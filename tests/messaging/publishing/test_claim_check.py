"""Large bodies by way of the object store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from shared.messaging import Bus, DeadLetters, Delivery
from shared.messaging.publishing.claim_check import BUCKET, CLAIM, MAX_AGE_SECONDS
from shared.testing import eventually
from tests.messaging.conftest import STREAM, Subscribers, message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.config import NatsSettings

LARGE = b"x" * 3_000_000  # more than the server takes in a message


@pytest.fixture
async def bus(nats_settings: NatsSettings) -> AsyncIterator[Bus]:
    settings = nats_settings.model_copy(update={"claim_check_bytes": 1_000})
    async with Bus(settings, name="tests") as bus:
        await bus.ensure_stream(STREAM)
        yield bus


async def test_a_large_body_arrives_whole_and_a_small_one_takes_the_straight_way(
    bus: Bus, subscribers: Subscribers
) -> None:
    got: list[Delivery] = []

    async def handler(delivery: Delivery) -> None:
        got.append(delivery)

    subscribers.start(bus, handler)
    await bus.publisher.publish_all([message(1, body=LARGE), message(2)])
    await eventually(lambda: len(got) == 2)
    large, small = sorted(got, key=lambda delivery: delivery.sequence)
    assert (large.body == LARGE, small.body) == (True, b"2")
    assert large.headers == {"Nats-Msg-Id": "m1", "X-Number": "1"}
    stored = await bus.js.get_msg("TESTS", 1)
    assert len(stored.data or b"") < 300
    assert (stored.headers or {})[CLAIM] == "1"
    assert CLAIM not in ((await bus.js.get_msg("TESTS", 2)).headers or {})
    config = (await bus.js.stream_info(f"OBJ_{BUCKET}")).config
    assert config.max_age == MAX_AGE_SECONDS


async def test_in_a_batch_as_well(bus: Bus, subscribers: Subscribers) -> None:
    sizes: list[int] = []

    async def handler(delivery: Delivery) -> None:
        sizes.append(len(delivery.body))

    subscribers.start(bus, handler)
    await bus.publisher.publish_atomic([message(n, body=b"x" * (2_000 * n)) for n in (1, 2)])
    await eventually(lambda: sorted(sizes) == [2_000, 4_000])


async def test_a_message_whose_body_is_gone_ends_with_the_dead_letters_and_can_be_replayed(
    bus: Bus, subscribers: Subscribers
) -> None:
    got: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        got.append(delivery.body)

    await bus.publisher.publish(message(1, body=LARGE))
    store = await bus.js.object_store(BUCKET)
    (info,) = await store.list()
    body = (await store.get(info.name)).data
    assert body == LARGE
    await store.put(info.name, b"somebody else's")
    subscribers.start(bus, handler)
    letters = DeadLetters(bus)
    (letter,) = await eventually(letters.list)
    assert "is not what was stored" in (letter.error_message or "")
    assert letter.attempts == 3
    assert not got
    await store.put(info.name, body)
    await letters.replay(letter.sequence)
    await eventually(lambda: got == [LARGE])


async def test_a_body_that_was_deleted_is_missed(bus: Bus, subscribers: Subscribers) -> None:
    async def handler(_: Delivery) -> None:
        raise AssertionError

    await bus.publisher.publish(message(1, body=LARGE))
    await bus.js.delete_object_store(BUCKET)
    subscribers.start(bus, handler)
    (letter,) = await eventually(DeadLetters(bus).list)
    assert "is not there" in (letter.error_message or "")


async def test_the_key_of_an_order_may_lie_in_a_body_left_elsewhere(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[tuple[str, int]] = []
    failed: set[tuple[str, int]] = set()

    def key(delivery: Delivery) -> str:
        return str(json.loads(delivery.body)["key"])

    async def handler(delivery: Delivery) -> None:
        document = json.loads(delivery.body)
        number = (document["key"], document["number"])
        if document["padding"] and number not in failed:
            failed.add(number)
            raise RuntimeError("once")
        seen.append(number)

    subscribers.start(bus, handler, order_by=key, concurrency=8)
    await bus.publisher.publish_all(
        [
            message(
                number,
                body=json.dumps(
                    {"key": "ab"[number % 2], "number": number, "padding": "x" * large}
                ).encode(),
            )
            for number in range(60)
            for large in [5_000 * (number % 3 == 0)]
        ]
    )
    await eventually(lambda: len(seen) == 60)
    assert [n for k, n in seen if k == "a"] == list(range(0, 60, 2))
    assert [n for k, n in seen if k == "b"] == list(range(1, 60, 2))
    assert len(failed) == 20


async def test_a_key_in_a_body_that_is_gone_is_a_failure_of_its_message_alone(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)

    await bus.publisher.publish_all([message(1), message(2, body=LARGE), message(3)])
    await bus.js.delete_object_store(BUCKET)
    subscribers.start(bus, handler, order_by=lambda delivery: delivery.body[:1].decode())
    (letter,) = await eventually(DeadLetters(bus).list)
    assert "is not there" in (letter.error_message or "")
    await eventually(lambda: seen == [b"1", b"3"])
