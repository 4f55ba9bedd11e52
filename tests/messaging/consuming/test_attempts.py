"""What counts as an attempt, and pauses spent outside of the consumer."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from shared.messaging import Bus, DeadLetters, Delivery, OutgoingMessage, RetryPolicy, Subscriber
from shared.messaging.subscriber import ATTEMPTS_FAILED
from shared.testing import eventually
from tests.messaging.conftest import QUICK, STREAM, SUBJECT, Subscribers, message
from tests.messaging.test_subscriber import _subscriber

LONG = RetryPolicy(
    attempts=3, first_delay_seconds=0.3, max_delay_seconds=0.3, jitter=0, long_wait_seconds=0.2
)


@pytest.mark.parametrize("attempts", [1, 3])
async def test_a_message_handed_back_by_ten_drains_has_its_attempts_still_before_it(
    bus: Bus, attempts: int
) -> None:
    retry = RetryPolicy(attempts=attempts, first_delay_seconds=0.01, max_delay_seconds=0.01)
    await bus.publisher.publish(message(1))
    for _ in range(10):
        begun = asyncio.Event()

        async def blocked(_: Delivery, begun: asyncio.Event = begun) -> None:
            begun.set()
            await asyncio.Event().wait()

        subscriber = _subscriber(bus, blocked, retry=retry)
        run = asyncio.create_task(subscriber.run())
        await asyncio.wait_for(begun.wait(), 10)
        await subscriber.drain(0)
        await run
    failures = 0

    async def failing(_: Delivery) -> None:
        nonlocal failures
        failures += 1
        raise RuntimeError("really failed")

    last = _subscriber(bus, failing, retry=retry)
    run = asyncio.create_task(last.run())
    (letter,) = await eventually(DeadLetters(bus).list)
    await last.drain(5)
    await run
    assert (failures, letter.reason) == (attempts, ATTEMPTS_FAILED)


async def test_a_message_lost_on_its_way_has_its_last_attempt_still_before_it(
    bus: Bus, subscribers: Subscribers
) -> None:
    subscriber = _subscriber(bus, _ignore, ack_wait_seconds=0.2)
    run = asyncio.create_task(subscriber.run())
    await eventually(lambda: subscriber.status.state == "running")
    await subscriber.drain(1)
    await run
    await bus.publisher.publish(message(1))
    pull = await bus.js.pull_subscribe_bind("tests", stream="TESTS")
    for _ in range(QUICK.attempts + 2):
        (arrived,) = await pull.fetch(1, timeout=10)
        await arrived.nak()
    seen: list[int] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.attempt)

    subscribers.start(bus, handler)
    await eventually(lambda: seen == [QUICK.attempts + 3])


async def test_a_long_pause_is_spent_outside_of_the_consumer(
    bus: Bus, subscribers: Subscribers
) -> None:
    attempts: list[int] = []
    headers: list[dict[str, str]] = []

    async def handler(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        headers.append(dict(delivery.headers))
        raise RuntimeError("again")

    others: list[Delivery] = []

    async def other(delivery: Delivery) -> None:
        others.append(delivery)

    subscribers.start(bus, handler, retry=LONG)
    subscribers.start(bus, other, durable="others", subject="evt.tests.>")
    await bus.publisher.publish(message(1))
    await eventually(lambda: attempts)

    async def nothing_pending() -> bool:
        info = await bus.js.consumer_info("TESTS", "tests")
        return bool(info.num_ack_pending == 0)

    await eventually(nothing_pending)
    assert len(attempts) < 3  # so it was waiting, and not in the consumer
    (letter,) = await eventually(DeadLetters(bus).list)
    assert attempts == [1, 2, 3]
    assert (letter.attempts, letter.body, letter.subject) == (3, b"1", SUBJECT)
    assert headers == 3 * [{"X-Number": "1", "Nats-Msg-Id": "m1"}]
    assert letter.headers == headers[0]
    # Neither the schedules nor their messages are for anybody else.
    assert [delivery.attempt for delivery in others] == [1]


async def test_a_stream_without_schedules_spends_long_pauses_in_the_consumer(
    bus: Bus, subscribers: Subscribers
) -> None:
    await bus.js.delete_stream("TESTS")
    await bus.js.add_stream(name="TESTS", subjects=list(STREAM.subjects))
    attempts: list[int] = []

    async def handler(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        raise RuntimeError("again")

    subscribers.start(bus, handler, retry=LONG)
    await bus.publisher.publish(message(1))
    await eventually(DeadLetters(bus).list)
    assert attempts == [1, 2, 3]
    assert (await bus.js.stream_info("TESTS")).state.last_seq == 1


async def test_a_put_off_message_survives_the_death_of_its_subscriber(bus: Bus) -> None:
    seen: Counter[int] = Counter()

    async def failing(delivery: Delivery) -> None:
        seen[delivery.attempt] += 1
        raise RuntimeError("again")

    async def working(delivery: Delivery) -> None:
        seen[delivery.attempt] += 1

    first = _subscriber(bus, failing, retry=LONG)
    run = asyncio.create_task(first.run())
    await bus.publisher.publish(OutgoingMessage(SUBJECT, b"1", {}, "m1"))
    await eventually(lambda: seen[1] == 1 and first.status.in_flight == 0)
    await first.drain(1)
    await run
    second: Subscriber = _subscriber(bus, working, retry=LONG)
    run = asyncio.create_task(second.run())
    await eventually(lambda: seen[2] == 1)
    await second.drain(1)
    await run


async def _ignore(_: Delivery) -> None:
    pass
