"""How cost grows: with the message, what is in flight, subscribers, keys, subjects and streams.

There are no peers here; the first row is the usual case, which the others are held against, and a
ratio of one says that growing costs nothing. Of large messages a turn has fewer. The table of the
outbox has a part of its own (`outbox`).

- A turn of handling publishes its messages to subscribers that wait for them, and ends when the
  last handler has returned. Publishing is in every row alike, so the ratios are a little nearer to
  one.
- The many streams are kept in memory: it is ours that is measured, not the disk.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import cycle, islice
from typing import TYPE_CHECKING

from nats.js.api import StorageType

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
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from benchmarks.harness import Bench, Run
    from shared.messaging import Delivery

_OPERATIONS = 5_000
_TURN_BYTES = 20_000_000  # so much goes over the wire in one turn at most, of every size
_SIZES = (500, 100, 1_000, 10_000, 100_000, 900_000)
_IN_FLIGHT = (64, 1, 8, 256, 512)
_AT_A_TIME = (64, 1, 8, 256, 512)
_SUBSCRIBERS = (1, 10, 30, 100)
_SUBJECTS = (1, 100, 10_000)
_KEYS = (100, 1, 10_000)
_STREAMS = (1, 10, 100, 1_000, 10_000)
_SMOKE_STREAMS = (1, 10)
_MADE_AT_ONCE = 8
_STREAM = "CURVES"


def _body(size: int) -> bytes:
    return b'{"payload":"' + b"x" * (size - len(b'{"payload":""}')) + b'"}'


_BODY = _body(500)


async def curves(bench: Bench) -> None:
    """Show how the cost of a message grows with everything around it."""
    async with (
        NatsServer() as server,
        Bus(NatsSettings(servers=(server.url,)), name="benchmarks") as bus,
    ):
        await bus.ensure_stream(StreamDefinition(_STREAM, ("curves.>",)))
        fewer: Mapping[float, int] = {
            size: min(_OPERATIONS, max(_TURN_BYTES // size, 1)) for size in _SIZES
        }
        drawn: tuple[tuple[str, str, Mapping[float, Run]], ...] = (
            ("publish, size", "bytes", {n: _publishing(bus, body=_body(n)) for n in _SIZES}),
            ("handle, size", "bytes", {n: _Handling(bus, body=_body(n)) for n in _SIZES}),
            (
                "publish, messages in flight",
                "in flight",
                {n: _publishing(bus, window=n) for n in _IN_FLIGHT},
            ),
            (
                "handle, messages at a time",
                "at a time",
                {n: _Handling(bus, concurrency=n) for n in _AT_A_TIME},
            ),
            (
                "handle, subscribers in the process",
                "subscribers",
                {n: _Handling(bus, subscribers=n) for n in _SUBSCRIBERS},
            ),
            (
                "publish, subjects (or tenants) in one stream",
                "subjects",
                {n: _publishing(bus, subjects=n) for n in _SUBJECTS},
            ),
            (
                "handle in order, keys (or tenants)",
                "keys",
                {n: _Handling(bus, keys=n) for n in _KEYS},
            ),
        )
        for title, axis, points in drawn:
            await bench.curve(
                f"curves: {title}",
                _OPERATIONS,
                axis,
                points,
                fewer=fewer if axis == "bytes" else None,
                around={
                    place: run.subscribed
                    for place, run in points.items()
                    if isinstance(run, _Handling)
                },
            )
        counts = _SMOKE_STREAMS if bench.smoke else _STREAMS
        await _make_streams(bus, max(counts))
        await bench.curve(
            "curves: publish, streams on the server",
            _OPERATIONS,
            "streams",
            {n: _over_streams(bus, n) for n in counts},
        )


def _publishing(bus: Bus, *, window: int = 64, subjects: int = 1, body: bytes = _BODY) -> Run:
    publisher = Publisher(bus, window=window)
    names = [f"curves.subject.{number}" for number in range(subjects)]

    async def run(operations: int) -> None:
        await _publish(publisher, _repeated(names, operations), body=body)
        await bus.js.purge_stream(_STREAM)

    return run


def _repeated(names: list[str], count: int) -> list[str]:
    """Return so many of the names, over and over."""
    return list(islice(cycle(names), count))


async def _publish(
    publisher: Publisher, subjects: list[str], *, keys: int = 1, body: bytes = _BODY
) -> None:
    outcomes = await publisher.publish_all(
        [
            OutgoingMessage(subject, body, {"X-Key": str(number % keys)}, new_event_id())
            for number, subject in enumerate(subjects)
        ]
    )
    for outcome in outcomes:
        if not isinstance(outcome, PubAck):
            raise outcome


async def _make_streams(bus: Bus, count: int) -> None:
    numbers = iter(range(count))
    js = bus.client.jetstream(timeout=60)  # the server takes longer, the more there are

    async def make() -> None:
        for number in numbers:
            await js.add_stream(
                name=f"CURVE_{number}",
                subjects=[f"curve.{number}"],
                storage=StorageType.MEMORY,
                max_msgs=1,
            )

    await asyncio.gather(*(make() for _ in range(_MADE_AT_ONCE)))


def _over_streams(bus: Bus, count: int) -> Run:
    """Publish to so many of the streams that there are."""
    names = [f"curve.{number}" for number in range(count)]

    async def run(operations: int) -> None:
        await _publish(bus.publisher, _repeated(names, operations))

    return run


class _Handling:
    """Publishes messages, spread evenly over waiting subscribers, until all are handled."""

    def __init__(
        self,
        bus: Bus,
        *,
        concurrency: int = 64,
        subscribers: int = 1,
        keys: int = 0,
        body: bytes = _BODY,
    ) -> None:
        self._bus = bus
        self._concurrency = concurrency
        self._keys = keys
        self._body = body
        self._group = new_event_id()
        self._names = [f"curves.{self._group}.{number}" for number in range(subscribers)]
        self._left = 0
        self._done = asyncio.Event()

    @asynccontextmanager
    async def subscribed(self) -> AsyncIterator[None]:
        """Have the subscribers run."""
        order_by = _key if self._keys else None
        async with AsyncExitStack() as stack:
            for name in self._names:
                await stack.enter_async_context(
                    _subscribed(self._bus, name, self._handle, self._concurrency, order_by)
                )
            yield
        await self._bus.js.purge_stream(_STREAM, subject=f"curves.{self._group}.>")

    async def __call__(self, operations: int) -> None:
        """Publish so many, and wait for the last one."""
        self._left = operations
        self._done.clear()
        names = _repeated(self._names, operations)
        await _publish(self._bus.publisher, names, keys=max(self._keys, 1), body=self._body)
        await self._done.wait()

    async def _handle(self, _delivery: Delivery) -> None:
        self._left -= 1
        if self._left == 0:
            self._done.set()


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
