"""Publishing 512 bytes of JSON into a stream in files, each message acknowledged by the server.

One server and one stream serve all contenders, over one connection (FastStream makes one of its
own), and every message carries an id of its own for the stream to know it by. At most 256
acknowledgements are awaited at a time by `Publisher`, `publish_async` and FastStream's window
alike; FastStream has no window of its own, and is fastest with one. What makes the comparison
unfair:

- The server shares the machine. Its CPU time is not in the figures, but waiting for it is.
- `gather` sets no limit: it keeps a task and a request for each message of the list in memory.
- nats-py raises the first error; `publish_all` returns the outcome of each message, gives up on
  each by itself, and counts what was stored for the metrics.
- The server flushes to the disk every two minutes, its default. With `sync_interval: always` it
  would be the disk that is measured.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from faststream.nats import NatsBroker
from pydantic_core import to_json

from shared.config import NatsSettings
from shared.context import new_event_id
from shared.dev import NatsServer
from shared.events import CONVENTION
from shared.events.credit import ORDER_UPDATED
from shared.messaging import Bus, OutgoingMessage, PubAck

if TYPE_CHECKING:
    from nats.js import JetStreamContext

    from benchmarks.harness import Bench, Run

_OPERATIONS = 2_000
_IN_FLIGHT = 256
_BYTES = 512
_SIZES = (100, 1_000, 10_000, 100_000, 900_000)
_TURN_BYTES = 20_000_000  # so much is published in one turn, of every size


def _body(size: int) -> bytes:
    return to_json({"payload": "x" * (size - len('{"payload":""}'))})


_BODY = _body(_BYTES)


async def publish(bench: Bench) -> None:
    """Compare publishing a list of messages."""
    async with (
        NatsServer() as server,
        Bus(NatsSettings(servers=(server.url,)), name="benchmarks") as bus,
    ):
        await bus.ensure_stream(CONVENTION.of(ORDER_UPDATED))
        stream = CONVENTION.of(ORDER_UPDATED).name
        broker = NatsBroker(server.url, logger=None)
        await broker.connect()
        js = bus.client.jetstream(publish_async_max_pending=_IN_FLIGHT)

        async def one_by_one(operations: int) -> None:
            for _ in range(operations):
                await js.publish(ORDER_UPDATED.subject, _BODY, headers=_headers())

        async def gathered(operations: int) -> None:
            await asyncio.gather(
                *(
                    js.publish(ORDER_UPDATED.subject, _BODY, headers=_headers())
                    for _ in range(operations)
                )
            )

        async def faststream(operations: int) -> None:
            window = asyncio.Semaphore(_IN_FLIGHT)

            async def send() -> None:
                await broker.publish(
                    _BODY, ORDER_UPDATED.subject, headers=_headers(), stream=stream
                )
                window.release()

            sending = []
            for _ in range(operations):
                await window.acquire()
                sending.append(asyncio.ensure_future(send()))
            await asyncio.gather(*sending)

        await bench.compare(
            "publish: 512 bytes, acknowledged",
            _OPERATIONS,
            {
                "shared: Publisher.publish_all": _ours(bus, _BODY),
                "nats-py: publish, one by one": one_by_one,
                "nats-py: gather of publish": gathered,
                "nats-py: publish_async": _asynchronous(js, _BODY),
                "FastStream: publish, 256 at a time": faststream,
            },
        )
        await broker.stop()


async def publish_sizes(bench: Bench) -> None:
    """Show what a message costs as it grows, beside the client's own best."""
    async with (
        NatsServer() as server,
        Bus(NatsSettings(servers=(server.url,)), name="benchmarks") as bus,
    ):
        await bus.ensure_stream(CONVENTION.of(ORDER_UPDATED))
        js = bus.client.jetstream(publish_async_max_pending=_IN_FLIGHT)
        for size in _SIZES:
            body = _body(size)
            await bench.compare(
                f"publish-sizes: {size:,} bytes, acknowledged",
                min(_OPERATIONS, max(_TURN_BYTES // size, 1)),
                {
                    "shared: Publisher.publish_all": _ours(bus, body),
                    "nats-py: publish_async": _asynchronous(js, body),
                },
            )


def _ours(bus: Bus, body: bytes) -> Run:
    async def run(operations: int) -> None:
        outcomes = await bus.publisher.publish_all(
            [
                OutgoingMessage(ORDER_UPDATED.subject, body, {}, new_event_id())
                for _ in range(operations)
            ]
        )
        for outcome in outcomes:
            if not isinstance(outcome, PubAck):
                raise outcome

    return run


def _asynchronous(js: JetStreamContext, body: bytes) -> Run:
    async def run(operations: int) -> None:
        acks = [
            await js.publish_async(ORDER_UPDATED.subject, body, headers=_headers())
            for _ in range(operations)
        ]
        await asyncio.gather(*acks)

    return run


def _headers() -> dict[str, str]:
    return {"Nats-Msg-Id": new_event_id()}
