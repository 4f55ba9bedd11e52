"""A handler that blocks the event loop keeps its messages, and is told of."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from shared.messaging import Bus, Delivery
from shared.testing import eventually
from tests.messaging.conftest import STREAM, Subscribers, message

if TYPE_CHECKING:
    import pytest

    from shared.config import NatsSettings

ACK_WAIT_SECONDS = 1.5


class Replica(threading.Thread):
    """A subscriber in an event loop, and with a connection, of its own."""

    def __init__(self, settings: NatsSettings, handled: list[bytes]) -> None:
        super().__init__()
        self._settings = settings
        self._handled = handled
        self.up, self.stop = threading.Event(), threading.Event()

    def run(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        async with Bus(self._settings, name="other") as bus, AsyncExitStack() as stack:
            Subscribers(stack).start(bus, self._handle, ack_wait_seconds=ACK_WAIT_SECONDS)
            self.up.set()
            await asyncio.to_thread(self.stop.wait)

    async def _handle(self, delivery: Delivery) -> None:
        self._handled.append(delivery.body)


async def test_a_handler_that_blocks_for_longer_than_its_acknowledgement_wait_is_run_once(
    bus: Bus,
    subscribers: Subscribers,
    nats_settings: NatsSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handled: list[bytes] = []

    async def blocking(delivery: Delivery) -> None:
        if not handled:
            handled.append(delivery.body)
            other.start()
            other.up.wait()
            time.sleep(3 * ACK_WAIT_SECONDS)
        else:
            handled.append(delivery.body)

    other = Replica(nats_settings, handled)
    await bus.ensure_stream(STREAM)
    await bus.publisher.publish_all([message(n) for n in range(5)])
    caplog.set_level(logging.ERROR, logger="shared.messaging.connection.watchdog")
    try:
        subscribers.start(bus, blocking, ack_wait_seconds=ACK_WAIT_SECONDS)
        await eventually(lambda: len(handled) >= 5)
        await eventually(lambda: acknowledged(bus))
        assert sorted(handled) == [b"%d" % n for n in range(5)]
    finally:
        other.stop.set()
        await asyncio.to_thread(other.join)
    await eventually(lambda: len(caplog.messages) >= 2)
    first, last = caplog.messages[:2]
    assert first.startswith("tests: the event loop is blocked at ")
    assert "blocking; its messages are kept" in first
    assert last.startswith("tests: blocked the event loop for about ")
    labels = {"service": "test-service", "subscriber": "tests"}
    blocked = REGISTRY.get_sample_value("subscriber_blocked_seconds_total", labels)
    assert blocked is not None
    assert blocked > ACK_WAIT_SECONDS


async def acknowledged(bus: Bus) -> bool:
    info = await bus.js.consumer_info("TESTS", "tests")
    return not info.num_ack_pending and not info.num_pending


async def test_a_loop_that_is_not_blocked_is_not_told_of_and_its_thread_ends(
    own_bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[bytes] = []

    async def patient(delivery: Delivery) -> None:
        await asyncio.sleep(2 * ACK_WAIT_SECONDS)
        handled.append(delivery.body)

    before = threading.active_count()
    async with AsyncExitStack() as stack:
        Subscribers(stack).start(own_bus, patient, ack_wait_seconds=ACK_WAIT_SECONDS)
        await own_bus.publisher.publish(message(1))
        await eventually(lambda: handled)
        assert handled == [b"1"]
    await eventually(lambda: threading.active_count() <= before)
    assert "blocked" not in caplog.text


async def test_a_loop_that_stopped_with_a_message_in_flight_leaves_it_to_others(
    bus: Bus, subscribers: Subscribers, nats_settings: NatsSettings
) -> None:
    handled, begun = asyncio.Event(), threading.Event()
    stopped = asyncio.new_event_loop()

    async def endless(delivery: Delivery) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def reading() -> None:
        async with Bus(nats_settings, name="other") as other, AsyncExitStack() as stack:
            Subscribers(stack).start(other, endless, ack_wait_seconds=ACK_WAIT_SECONDS)
            stopping = stopped.run_in_executor(None, begun.wait)
            await stopping
            stopped.stop()
            await asyncio.Event().wait()

    async def ours(delivery: Delivery) -> None:
        handled.set()

    await bus.publisher.publish(message(1))
    running = stopped.create_task(reading())
    await asyncio.to_thread(stopped.run_forever)
    subscribers.start(bus, ours, ack_wait_seconds=ACK_WAIT_SECONDS)
    try:
        await asyncio.wait_for(handled.wait(), 25)
    finally:
        running.cancel()
        await asyncio.to_thread(stopped.run_until_complete, asyncio.wait([running]))
        stopped.close()
