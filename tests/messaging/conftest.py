"""A bus on a real server, and what tests of subscribers need."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from shared.config import NatsSettings
from shared.events import StreamDefinition
from shared.messaging import Bus, Delivery, OutgoingMessage, RetryPolicy, Subscriber, Subscription

if TYPE_CHECKING:
    from shared.dev import NatsServer

STREAM = StreamDefinition("TESTS", ("evt.tests.>",))
SUBJECT = "evt.tests.happened"
QUICK = RetryPolicy(attempts=3, first_delay_seconds=0.01, max_delay_seconds=0.05)

Handler = Callable[[Delivery], Awaitable[None]]


def message(number: int, *, subject: str = SUBJECT, body: bytes | None = None) -> OutgoingMessage:
    return OutgoingMessage(subject, body or b"%d" % number, {"X-Number": str(number)}, f"m{number}")


@pytest.fixture
async def bus(nats_settings: NatsSettings) -> AsyncIterator[Bus]:
    async with Bus(nats_settings, name="tests") as bus:
        await bus.ensure_stream(STREAM)
        yield bus


@pytest.fixture
async def own_bus(own_nats_server: NatsServer) -> AsyncIterator[Bus]:
    """A bus on a server that the test may kill."""
    async with Bus(NatsSettings(servers=(own_nats_server.url,)), name="tests") as bus:
        await bus.ensure_stream(STREAM)
        yield bus


class Subscribers:
    """Starts subscribers, and drains them when the test is over."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    def start(self, bus: Bus, handler: Handler, **options: object) -> Subscriber:
        settings: dict[str, object] = {
            "subject": SUBJECT,
            "durable": "tests",
            "stream": "TESTS",
            "retry": QUICK,
        }
        subscription = Subscription(handler=handler, **(settings | options))  # type: ignore[arg-type]
        subscriber = Subscriber(bus, subscription, service="test-service")
        task = asyncio.create_task(subscriber.run())

        async def end() -> None:
            await subscriber.drain(5)
            await task

        self._stack.push_async_callback(end)
        return subscriber


@pytest.fixture
async def subscribers(bus: Bus) -> AsyncIterator[Subscribers]:
    async with AsyncExitStack() as stack:
        yield Subscribers(stack)


@pytest.fixture
async def own_subscribers(own_bus: Bus) -> AsyncIterator[Subscribers]:
    async with AsyncExitStack() as stack:
        yield Subscribers(stack)
