"""Batches, pausing, the circuit breaker, confirmed acknowledgements."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY

from shared.config import NatsSettings
from shared.dev import NatsServer
from shared.errors import DatabaseError, ValidationError
from shared.messaging import (
    BatchPolicy,
    Bus,
    Circuit,
    DeadLetters,
    Delivery,
    RetryPolicy,
    State,
    Subscription,
)
from shared.testing import NatsProxy, eventually, faults
from tests.messaging.conftest import QUICK, STREAM, SUBJECT, Subscribers, message
from tests.messaging.test_subscriber import _subscriber

if TYPE_CHECKING:
    from collections.abc import Sequence


async def test_messages_come_in_batches_of_the_agreed_size(
    bus: Bus, subscribers: Subscribers
) -> None:
    batches: list[list[bytes]] = []

    async def together(deliveries: Sequence[Delivery]) -> None:
        batches.append([delivery.body for delivery in deliveries])

    await bus.publisher.publish_all([message(n) for n in range(25)])
    subscriber = subscribers.start(
        bus,
        _never,
        batch=BatchPolicy(size=10, wait_seconds=0.2),
        handle_batch=together,
        concurrency=2,
    )
    await eventually(lambda: sum(map(len, batches)) == 25)
    assert sorted(map(len, batches)) == [5, 10, 10]
    await eventually(lambda: subscriber.status.in_flight == 0)
    assert (await bus.js.consumer_info("TESTS", "tests")).num_pending == 0


async def test_poison_in_a_batch_neither_blocks_nor_buries_the_others(
    bus: Bus, subscribers: Subscribers
) -> None:
    handled: list[bytes] = []

    async def one(delivery: Delivery) -> None:
        if delivery.body == b"3":
            raise ValidationError("poison")
        if delivery.body == b"5" and delivery.attempt == 1:
            raise RuntimeError("again")
        handled.append(delivery.body)

    async def together(deliveries: Sequence[Delivery]) -> None:
        if any(delivery.body == b"3" for delivery in deliveries):
            raise ValidationError("poison")
        handled.extend(delivery.body for delivery in deliveries)

    await bus.publisher.publish_all([message(n) for n in range(10)])
    subscribers.start(bus, one, batch=BatchPolicy(size=10, wait_seconds=0.1), handle_batch=together)
    (letter,) = await eventually(DeadLetters(bus).list)
    assert letter.body == b"3"
    await eventually(lambda: len(handled) == 9)
    assert sorted(handled) == sorted(b"%d" % n for n in range(10) if n != 3)


async def test_draining_gives_a_batch_back_that_was_not_begun(bus: Bus) -> None:
    policy = BatchPolicy(size=100, wait_seconds=3600)
    first = _subscriber(bus, _never, batch=policy, handle_batch=_never_together)
    run = asyncio.create_task(first.run())
    await bus.publisher.publish_all([message(n) for n in range(3)])
    await eventually(lambda: first.status.in_flight == 3)
    await first.drain(5)
    await run
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)

    second = _subscriber(bus, handler)
    run = asyncio.create_task(second.run())
    await eventually(lambda: sorted(seen) == [b"0", b"1", b"2"])
    await second.drain(5)
    await run


async def test_a_paused_subscriber_fetches_nothing_until_it_is_resumed(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []
    go = asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        if delivery.body == b"0":
            await go.wait()
        seen.append(delivery.body)

    subscriber = subscribers.start(bus, handler)
    await bus.publisher.publish(message(0))
    await eventually(lambda: subscriber.status.in_flight == 1)
    subscriber.pause()
    subscriber.pause()
    await eventually(lambda: subscriber.status.state is State.PAUSED)
    assert (subscriber.alive, subscriber.paused, _gauge("subscriber_paused")) == (True, True, 1)
    await bus.publisher.publish_all([message(n) for n in range(1, 4)])
    go.set()
    await eventually(lambda: seen == [b"0"])
    await asyncio.sleep(0.3)
    assert seen == [b"0"]
    info = await bus.js.consumer_info("TESTS", "tests")
    assert (info.num_pending, info.num_waiting) == (3, 0)
    subscriber.resume()
    await eventually(lambda: len(seen) == 4)
    assert (subscriber.status.state, _gauge("subscriber_paused")) == (State.RUNNING, 0)


async def test_a_paused_subscriber_drains(bus: Bus) -> None:
    subscriber = _subscriber(bus, _never)
    run = asyncio.create_task(subscriber.run())
    await eventually(lambda: subscriber.status.state is State.RUNNING)
    subscriber.pause()
    await eventually(lambda: subscriber.status.state is State.PAUSED)
    await subscriber.drain(5)
    await run
    assert subscriber.status.state is State.STOPPED


async def test_an_outage_stops_the_reading_until_one_message_gets_through(
    bus: Bus, subscribers: Subscribers
) -> None:
    out = True
    tries: list[bytes] = []
    done: list[bytes] = []
    running = peak = 0

    async def handler(delivery: Delivery) -> None:
        nonlocal running, peak
        tries.append(delivery.body)
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.05)
        running -= 1
        if out:
            raise DatabaseError("connection refused")
        done.append(delivery.body)

    patient = RetryPolicy(attempts=2, first_delay_seconds=0.2, max_delay_seconds=0.2, jitter=0)
    subscriber = subscribers.start(bus, handler, concurrency=8, retry=patient, outage_threshold=3)
    await bus.publisher.publish_all([message(n) for n in range(40)])
    await eventually(lambda: subscriber.status.circuit is Circuit.OPEN)
    assert _gauge("subscriber_circuit_open") == 1
    await eventually(lambda: not running)
    first_wave, peak = len(tries), 0
    assert first_wave == 8
    await eventually(lambda: len(tries) >= first_wave + 5)
    # All eight in hand wait to try again; one at a time does.
    assert (peak, subscriber.status.in_flight) == (1, 8)
    out = False
    await eventually(lambda: len(done) == 40)
    assert subscriber.status.circuit is Circuit.CLOSED
    assert _gauge("subscriber_circuit_open") == 0
    assert await DeadLetters(bus).list() == []


async def test_an_outage_and_a_drain_end_at_once_and_cost_no_message(bus: Bus) -> None:
    async def handler(_: Delivery) -> None:
        raise DatabaseError("connection refused")

    slow = RetryPolicy(attempts=1, first_delay_seconds=3600, max_delay_seconds=3600)
    first = _subscriber(bus, handler, retry=slow, outage_threshold=1)
    run = asyncio.create_task(first.run())
    await bus.publisher.publish_all([message(n) for n in range(3)])
    await eventually(lambda: first.status.circuit is Circuit.OPEN)
    async with asyncio.timeout(120):
        await first.drain(3600)
        await run
    seen: list[bytes] = []

    async def working(delivery: Delivery) -> None:
        seen.append(delivery.body)

    second = _subscriber(bus, working, retry=slow)
    run = asyncio.create_task(second.run())
    await eventually(lambda: sorted(seen) == [b"0", b"1", b"2"])
    await second.drain(5)
    await run
    assert await DeadLetters(bus).list() == []


async def test_a_confirmed_acknowledgement_is_at_the_server_before_the_place_is_free(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen = 0

    async def handler(_: Delivery) -> None:
        nonlocal seen
        seen += 1

    subscriber = subscribers.start(bus, handler, double_ack=True)
    await bus.publisher.publish_all([message(n) for n in range(50)])
    await eventually(lambda: seen == 50 and subscriber.status.in_flight == 0)
    info = await bus.js.consumer_info("TESTS", "tests")
    assert (info.num_ack_pending, info.num_pending) == (0, 0)


async def test_a_handled_message_whose_acknowledgement_was_lost_is_not_handled_again(
    own_bus: Bus,
    own_nats_server: NatsServer,
    own_subscribers: Subscribers,
) -> None:
    seen: list[bytes] = []
    begun = asyncio.Event()
    finish = asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)
        begun.set()
        await finish.wait()

    subscriber = own_subscribers.start(own_bus, handler, ack_wait_seconds=1)
    await own_bus.publisher.publish(message(1))
    await begun.wait()
    await own_nats_server.pause()
    finish.set()
    await eventually(lambda: subscriber.status.in_flight == 0)
    # The acknowledgement waits in a socket that nobody reads, and is lost with its server.
    await own_nats_server.kill()
    await own_nats_server.restart()

    async def acknowledged() -> bool:
        info = await own_bus.js.consumer_info("TESTS", "tests")
        return info.num_ack_pending == 0 and bool(info.ack_floor and info.ack_floor.stream_seq)

    await eventually(acknowledged)
    assert seen == [b"1"]


async def test_what_comes_again_while_its_acknowledgement_is_confirmed_is_not_handled_again(
    bus: Bus, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.messaging.consuming.acknowledgements.API_TIMEOUT_SECONDS", 1.5)
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)

    async with NatsProxy(nats_server) as proxy, AsyncExitStack() as stack:
        far = await stack.enter_async_context(Bus(NatsSettings(servers=(proxy.url,)), name="tests"))
        subscriber = Subscribers(stack).start(
            far, handler, double_ack=True, order_by=lambda _: "a", ack_wait_seconds=1
        )
        await eventually(lambda: subscriber.status.state is State.RUNNING)
        async with faults.lost_acks(proxy):
            await bus.publisher.publish_all([message(n) for n in range(3)], ordered=True)
            await eventually(lambda: redelivered(bus))
        await eventually(lambda: len(seen) >= 3 and subscriber.status.in_flight == 0)
    assert seen == [b"0", b"1", b"2"]


async def redelivered(bus: Bus) -> bool:
    return bool((await bus.js.consumer_info("TESTS", "tests")).num_redelivered)


async def test_large_messages_and_a_busy_loop_do_not_get_the_connection_cut_off() -> None:
    seen: list[int] = []

    async def handler(delivery: Delivery) -> None:
        if len(seen) % 50 == 0:
            time.sleep(0.3)
        seen.append(delivery.sequence)

    async with (
        NatsServer(config={"max_pending": 2_000_000}) as server,
        Bus(NatsSettings(servers=(server.url,)), name="tests") as bus,
    ):
        await bus.ensure_stream(STREAM)
        large = [message(n, body=b"x" * 100_000) for n in range(300)]
        large[100:100] = [message(1_000 + n, body=b"x" * 900_000) for n in range(3)]
        await bus.publisher.publish_all(large)
        subscriber = _subscriber(bus, handler, concurrency=200)
        run = asyncio.create_task(subscriber.run())
        await eventually(lambda: len(seen) == 303)
        await subscriber.drain(5)
        await run
        assert seen == list(range(1, 304))
        assert bus.client.stats["reconnects"] == 0


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="size is 0"):
        BatchPolicy(size=0)
    with pytest.raises(ValueError, match="go together"):
        Subscription(SUBJECT, "tests", _never, stream="TESTS", batch=BatchPolicy())
    with pytest.raises(ValueError, match="outage_threshold"):
        Subscription(SUBJECT, "tests", _never, stream="TESTS", outage_threshold=0)
    with pytest.raises(ValueError, match="long_wait_seconds"):
        RetryPolicy(long_wait_seconds=0)
    assert Subscription(SUBJECT, "tests", _never, stream="TESTS", retry=QUICK).retry is QUICK


def _gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"service": "test-service", "subscriber": "tests"})


async def _never(_: Delivery) -> None:
    raise AssertionError("not to be called")


async def _never_together(_: Sequence[Delivery]) -> None:
    raise AssertionError("not to be called")
