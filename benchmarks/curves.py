"""How cost grows: with concurrency, with subscribers, with tenants and subjects.

There are no peers here; the first row is what the others are held against, and a ratio of one says
that growing costs nothing. Message sizes are a part of their own (`publish-sizes`), and so is the
table of the outbox (`outbox`).
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import cycle, islice
from typing import TYPE_CHECKING

from shared.config import NatsSettings
from shared.context import new_event_id
from shared.dev import NatsServer
from shared.events import StreamDefinition
from shared.messaging import (
    Bus,
    OutgoingMessage,
    PubAck,
    Publisher,
    State,
    Subscriber,
    Subscription,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from benchmarks.harness import Bench, Run
    from shared.messaging import Delivery

_OPERATIONS = 5_000
_CONCURRENCY = (64, 1, 8, 512)
_WINDOWS = (64, 1, 8, 512)
_SUBSCRIBERS = (1, 10, 100)
_SUBJECTS = (1, 100, 10_000)
_STREAMS = (1, 10, 100)
_STREAM = "CURVES"
_BODY = b'{"payload":"' + b"x" * 500 + b'"}'


async def curves(bench: Bench) -> None:
    """Show how the cost of a message grows with everything around it."""
    async with (
        NatsServer() as server,
        Bus(NatsSettings(servers=(server.url,)), name="benchmarks") as bus,
    ):
        await bus.ensure_stream(StreamDefinition(_STREAM, ("curves.>",)))
        await bench.compare(
            "curves: publish, messages in flight",
            _OPERATIONS,
            {f"{window} in flight": _publishing(bus, window=window) for window in _WINDOWS},
        )
        await bench.compare(
            "curves: publish, subjects (or tenants) in one stream",
            _OPERATIONS,
            {f"{count:,} subjects": _publishing(bus, subjects=count) for count in _SUBJECTS},
        )
        await bench.compare(
            "curves: handle, messages at a time",
            _OPERATIONS,
            {f"{count} at a time": _handling(bus, concurrency=count) for count in _CONCURRENCY},
        )
        await bench.compare(
            "curves: handle, subscribers in the process",
            _OPERATIONS,
            {f"{count} subscribers": _handling(bus, subscribers=count) for count in _SUBSCRIBERS},
        )
        await bench.compare(
            "curves: handle in order, keys (or tenants)",
            _OPERATIONS,
            {f"{count:,} keys": _handling(bus, keys=count) for count in (100, 1, 10_000)},
        )
        await bench.compare(
            "curves: publish, streams on the server",
            _OPERATIONS,
            {f"{count} streams": await _over_streams(bus, count) for count in _STREAMS},
        )


def _publishing(bus: Bus, *, window: int = 256, subjects: int = 1) -> Run:
    publisher = Publisher(bus, window=window)
    names = [f"curves.subject.{number}" for number in range(subjects)]

    async def run(operations: int) -> None:
        await _publish(publisher, _repeated(names, operations))

    return run


def _repeated(names: list[str], count: int) -> list[str]:
    """Return so many of the names, over and over."""
    return list(islice(cycle(names), count))


async def _publish(publisher: Publisher, subjects: list[str], keys: int = 1) -> None:
    outcomes = await publisher.publish_all(
        [
            OutgoingMessage(subject, _BODY, {"X-Key": str(number % keys)}, new_event_id())
            for number, subject in enumerate(subjects)
        ]
    )
    for outcome in outcomes:
        if not isinstance(outcome, PubAck):
            raise outcome


async def _over_streams(bus: Bus, count: int) -> Run:
    for number in range(count):
        await bus.ensure_stream(StreamDefinition(f"CURVE_{number}", (f"curve.{number}",)))
    names = [f"curve.{number}" for number in range(count)]

    async def run(operations: int) -> None:
        await _publish(bus.publisher, _repeated(names, operations))

    return run


def _handling(bus: Bus, *, concurrency: int = 64, subscribers: int = 1, keys: int = 0) -> Run:
    """Publish so many messages first, spread evenly, and time their way through the handlers.

    Publishing is in every row alike, so the ratios are a little nearer to one than those of
    handling alone.
    """
    group = new_event_id()
    names = [f"curves.{group}.{number}" for number in range(subscribers)]

    async def run(operations: int) -> None:
        left = operations
        done = asyncio.Event()

        async def handler(_delivery: Delivery) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                done.set()

        await _publish(bus.publisher, _repeated(names, operations), max(keys, 1))
        async with AsyncExitStack() as stack:
            for name in names:
                await stack.enter_async_context(
                    _subscribed(bus, name, handler, concurrency, _key if keys else None)
                )
            await done.wait()
        await bus.js.purge_stream(_STREAM, subject=f"curves.{group}.>")

    return run


def _key(delivery: Delivery) -> str | None:
    return delivery.headers.get("X-Key")


@asynccontextmanager
async def _subscribed(
    bus: Bus,
    subject: str,
    handler: Callable[[Delivery], Awaitable[None]],
    concurrency: int,
    order_by: Callable[[Delivery], str | None] | None,
) -> AsyncIterator[None]:
    subscription = Subscription(
        subject=subject,
        durable=f"curves-{new_event_id()}",
        handler=handler,
        stream=_STREAM,
        concurrency=concurrency,
        order_by=order_by,
    )
    subscriber = Subscriber(bus, subscription, service="benchmarks")
    running = asyncio.create_task(subscriber.run())
    while subscriber.status.state is not State.RUNNING:  # noqa: ASYNC110 - has no event for it
        await asyncio.sleep(0)
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await bus.js.delete_consumer(_STREAM, subscription.durable)
