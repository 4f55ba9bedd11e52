"""A bus on a real server, and what tests of subscribers need."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeVar, overload

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
T = TypeVar("T")


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


@overload
async def eventually(condition: Callable[[], Coroutine[Any, Any, T]]) -> T: ...
@overload
async def eventually(condition: Callable[[], T]) -> T: ...
async def eventually(condition: Callable[[], Any]) -> Any:
    """Return what `condition` returns or is awaited to, once it is true.

    The patience is less than it takes the engine to notice that a pull is lost without a word
    (30 s), so that healing by being told and healing by silence are told apart.
    """
    async with asyncio.timeout(25):
        while True:
            found = condition()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


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
