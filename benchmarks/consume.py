"""Consuming a stream of orders, and the time from publishing one to seeing it.

One server and one stream serve all contenders; each turn reads what was published before it, with a
consumer of its own, and acknowledges each message. What makes the comparison unfair:

- We hand a validated order to the handler, inside of its context and span, with a deadline, metrics
  and a circuit breaker. nats-py hands out bytes, and so does FastStream here.
- Spans are log lines, one for each message. `spans not logged` sets their logger to WARNING.
- `fetch` asks for one message at a time, which is how its documentation begins; a standing pull and
  a push consumer have many on their way.
- FastStream hands out parsed JSON, unvalidated. Its pull consumer fetches one message at a time by
  default. Its push consumer is left out: it loses what arrives before its broker has started, which
  comes again only after `ack_wait`, 30 s later.
- nats-py's own client reads headers character by character; ours does not. Peers have nats-py's.
- The server shares the machine. Its CPU time is not in the figures, but waiting for it is.

The second part publishes one message at a time, each after a pause in which all are idle.
`fetch(10, timeout=1)` is the loop that many services have: it now and then waits for its time to
pass, though there is a message.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import nats
import nats.errors
import nats.js.errors
from faststream.nats import JStream, NatsBroker, PullSub
from nats.js.api import ConsumerConfig
from pydantic_core import to_json

from shared.config import NatsSettings
from shared.context import new_event_id
from shared.dev import NatsServer
from shared.events import CONVENTION, Envelope
from shared.events.credit import ORDER_UPDATED, OrderLine, OrderUpdatedPayload
from shared.messaging import BatchPolicy, Bus, OutgoingMessage, State, Subscriber, Subscription
from shared.service.handlers import Handler
from shared.service.providers import Provisions
from shared.service.runner import HandlerRunner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from nats.aio.msg import Msg

    from benchmarks.harness import Bench, Measure, Run

_OPERATIONS = 5_000
_DELIVERIES = 300
# So that a turn of theirs takes about as long as one of the others.
_OPERATIONS_ONE_BY_ONE = 2_000
_OPERATIONS_BY_DEFAULT = 1_000
_CONCURRENCY = 256
_BATCH = 100
_PAUSE_SECONDS = 0.002
_STOP_SECONDS = 5.0
_FETCHED = 10
_STREAM = CONVENTION.of(ORDER_UPDATED).name
_SUBJECT = ORDER_UPDATED.subject

_ORDER = OrderUpdatedPayload(
    merchant_id=UUID("0190a5f0-7c4e-7b5a-9d43-2f1f6d0f2a11"),
    merchant_domain="ada.example.com",
    order_id="5123456789",
    order_name="#1042",
    currency="EUR",
    updated_at=datetime(2025, 5, 4, 12, 30, tzinfo=UTC),
    lines=[
        OrderLine(line_id=f"{n}", title=f"Lamp {n}", sku=f"LAMP-{n}", quantity=n, price=Decimal(9))
        for n in (1, 2, 3)
    ],
)


class _Counter:
    """Is told of each message, and knows when enough were seen."""

    def __init__(self, wanted: int) -> None:
        self._left = wanted
        self.done = asyncio.Event()
        self.last = 0.0

    def seen(self) -> None:
        self.last = time.perf_counter()
        self._left -= 1
        if self._left <= 0:
            self.done.set()


if TYPE_CHECKING:
    Consumer = Callable[[Bus, Callable[[], None]], AbstractAsyncContextManager[None]]


async def consume(bench: Bench) -> None:
    """Compare reading a stream, and the delay of one message."""
    async with (
        NatsServer() as server,
        Bus(NatsSettings(servers=(server.url,)), name="benchmarks") as bus,
        await nats.connect(server.url) as client,
    ):
        peers = Bus.around(client, name="peers", settings=bus.settings)
        await bus.ensure_stream(CONVENTION.of(ORDER_UPDATED))
        await bus.publisher.publish_all([_message() for _ in range(_OPERATIONS)])

        def reading(consumer: Consumer, bus: Bus = peers) -> Run:
            async def run(operations: int) -> None:
                counter = _Counter(operations)
                async with consumer(bus, counter.seen):
                    await counter.done.wait()

            return run

        await bench.compare(
            "consume: an order, acknowledged",
            _OPERATIONS,
            {
                "shared: typed handler": reading(_ours, bus),
                "shared: typed handler, spans not logged": reading(_ours_without_span_lines, bus),
                "shared: typed handler of batches": reading(_ours_in_batches, bus),
                "nats-py: fetch, one by one": reading(_fetch(1)),
                "nats-py: push, callback": reading(_push),
                "nats-py: standing pull by hand": reading(_standing_pull),
                "FastStream: pull, its default": reading(_faststream(pull_sub=PullSub())),
                "FastStream: pull, in batches": reading(
                    _faststream(pull_sub=PullSub(batch_size=_BATCH, batch=True))
                ),
            },
            fewer={
                "nats-py: fetch, one by one": _OPERATIONS_ONE_BY_ONE,
                "FastStream: pull, its default": _OPERATIONS_BY_DEFAULT,
                "FastStream: pull, in batches": _OPERATIONS_ONE_BY_ONE,
            },
        )

        await bus.js.purge_stream(_STREAM)

        def delayed(consumer: Consumer, bus: Bus = peers) -> Measure:
            async def measure(operations: int) -> list[float]:
                seconds = []
                counter = _Counter(1)
                async with consumer(bus, lambda: counter.seen()):  # noqa: PLW0108 - each time another
                    for _ in range(operations):
                        counter = _Counter(1)
                        message = _message()
                        began = time.perf_counter()
                        await bus.client.publish(
                            message.subject, message.body, headers=dict(message.headers)
                        )
                        await counter.done.wait()
                        seconds.append(counter.last - began)
                        await asyncio.sleep(_PAUSE_SECONDS)
                await bus.js.purge_stream(_STREAM)
                return seconds

            return measure

        await bench.delays(
            "consume: from idle, publishing to handler",
            _DELIVERIES,
            {
                "shared: typed handler": delayed(_ours, bus),
                "nats-py: push, callback": delayed(_push),
                "nats-py: fetch(10, timeout=1)": delayed(_fetch(_FETCHED)),
            },
        )


def _message() -> OutgoingMessage:
    envelope = Envelope.create(ORDER_UPDATED, _ORDER, source_service="webhook-service")
    return OutgoingMessage(_SUBJECT, envelope.encode(), envelope.headers(), new_event_id())


# -- ours ------------------------------------------------------------------------------------


@asynccontextmanager
async def _ours(bus: Bus, seen: Callable[[], None]) -> AsyncIterator[None]:
    async def debit(order: OrderUpdatedPayload) -> None:  # noqa: ARG001 - as a handler would
        seen()

    async with _running(bus, Handler.of(ORDER_UPDATED, debit, deadline_seconds=30)):
        yield


@asynccontextmanager
async def _ours_without_span_lines(bus: Bus, seen: Callable[[], None]) -> AsyncIterator[None]:
    logger = logging.getLogger("shared.tracing")
    logger.setLevel(logging.WARNING)
    try:
        async with _ours(bus, seen):
            yield
    finally:
        logger.setLevel(logging.NOTSET)


@asynccontextmanager
async def _ours_in_batches(bus: Bus, seen: Callable[[], None]) -> AsyncIterator[None]:
    async def debit(orders: list[OrderUpdatedPayload]) -> None:
        for _ in orders:
            seen()

    policy = BatchPolicy(size=_BATCH, wait_seconds=0.01)
    async with _running(bus, Handler.of(ORDER_UPDATED, debit, batch=policy, deadline_seconds=30)):
        yield


@asynccontextmanager
async def _running(bus: Bus, handler: Handler) -> AsyncIterator[None]:
    runner = HandlerRunner(
        handler, service="benchmarks", provisions=Provisions(), unit_of_work=None
    )
    subscription = Subscription(
        subject=_SUBJECT,
        durable=new_event_id(),
        handler=runner,
        stream=_STREAM,
        concurrency=4 if handler.batch else _CONCURRENCY,
        deadline_seconds=handler.deadline_seconds,
        batch=handler.batch,
        handle_batch=runner.batch if handler.batch else None,
    )
    subscriber = Subscriber(bus, subscription, service="benchmarks")
    running = asyncio.create_task(subscriber.run())
    while subscriber.status.state is not State.RUNNING:  # noqa: ASYNC110 - has no event for it
        await asyncio.sleep(0)
    try:
        yield
    finally:
        running.cancel()  # what is on its way is of no interest, so nobody waits for it
        with suppress(asyncio.CancelledError):
            await running
        await _forget(bus, subscription.durable)


async def _forget(bus: Bus, durable: str) -> None:
    with suppress(nats.js.errors.NotFoundError):
        await bus.js.delete_consumer(_STREAM, durable)


# -- peers -----------------------------------------------------------------------------------


def _fetch(count: int) -> Consumer:
    @asynccontextmanager
    async def consumer(bus: Bus, seen: Callable[[], None]) -> AsyncIterator[None]:
        durable = new_event_id()
        subscription = await bus.js.pull_subscribe(_SUBJECT, durable=durable, stream=_STREAM)

        stopping = asyncio.Event()

        async def loop() -> None:
            # `fetch` may take its cancellation for the end of its time.
            while not stopping.is_set():
                with suppress(nats.errors.TimeoutError):
                    for message in await subscription.fetch(count, timeout=1):
                        seen()
                        await message.ack()

        running = asyncio.create_task(loop())
        try:
            yield
        finally:
            stopping.set()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await subscription.unsubscribe()
            await _forget(bus, durable)

    return consumer


@asynccontextmanager
async def _push(bus: Bus, seen: Callable[[], None]) -> AsyncIterator[None]:
    durable = new_event_id()

    async def callback(message: Msg) -> None:
        seen()
        await message.ack()

    subscription = await bus.js.subscribe(
        _SUBJECT,
        durable=durable,
        stream=_STREAM,
        cb=callback,
        manual_ack=True,
        config=ConsumerConfig(max_ack_pending=10_000),
    )
    try:
        yield
    finally:
        await subscription.unsubscribe()
        await _forget(bus, durable)


@asynccontextmanager
async def _standing_pull(bus: Bus, seen: Callable[[], None]) -> AsyncIterator[None]:
    durable = new_event_id()
    await bus.js.add_consumer(
        _STREAM,
        ConsumerConfig(durable_name=durable, filter_subject=_SUBJECT, max_ack_pending=10_000),
    )
    inbox = bus.client.new_inbox()

    async def callback(message: Msg) -> None:
        seen()
        await message.ack()

    subscription = await bus.client.subscribe(inbox, cb=callback)
    request = to_json({"batch": _OPERATIONS, "expires": int(30e9)})
    await bus.client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{_STREAM}.{durable}", request, reply=inbox)
    try:
        yield
    finally:
        await subscription.unsubscribe()
        await _forget(bus, durable)


def _faststream(**options: Any) -> Consumer:
    @asynccontextmanager
    async def consumer(bus: Bus, seen: Callable[[], None]) -> AsyncIterator[None]:
        broker = NatsBroker(list(bus.settings.servers), logger=None)
        durable = new_event_id()
        pull = options.get("pull_sub")
        stream = JStream(_STREAM, declare=False)
        subscriber = broker.subscriber(_SUBJECT, stream=stream, durable=durable, **options)
        if pull is not None and pull.batch:

            @subscriber  # type: ignore[untyped-decorator]
            async def handle_all(orders: list[dict[str, Any]]) -> None:
                for _ in orders:
                    seen()

        else:

            @subscriber  # type: ignore[untyped-decorator]
            async def handle(order: dict[str, Any]) -> None:  # noqa: ARG001 - as a handler would
                seen()

        await broker.connect()
        await broker.start()
        try:
            yield
        finally:
            with suppress(TimeoutError):  # now and then its connection never ends draining
                async with asyncio.timeout(_STOP_SECONDS):
                    await broker.stop()
            await _forget(bus, durable)

    return consumer
