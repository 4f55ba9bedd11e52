"""A stream on three servers, of which the leader is killed under the relay or a subscriber."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from sqlalchemy import text

from shared.config import NatsSettings
from shared.delivery import Inbox
from shared.dev import NatsServer
from shared.dev.server import free_port
from shared.events import Envelope
from shared.messaging import (
    Bus,
    DeadLetters,
    Delivery,
    OutgoingMessage,
    PubAck,
    RetryPolicy,
    Subscriber,
    Subscription,
)
from shared.platform.streams import STREAMS
from shared.testing import eventually
from tests.delivery.world import (
    COUNTED,
    PATIENCE_SECONDS,
    SERVICE,
    STREAM,
    Counted,
    World,
    all_out,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.database import Database

_POISON = 2010


def cluster() -> list[NatsServer]:
    ports: set[int] = set()
    while len(ports) < 3:
        ports.add(free_port())
    routes = [f"nats://127.0.0.1:{port}" for port in ports]
    return [
        NatsServer(
            name=f"n{port}",
            config={"cluster": {"name": "c", "host": "127.0.0.1", "port": port, "routes": routes}},
        )
        for port in ports
    ]


async def test_the_leader_is_killed_and_nothing_is_lost_doubled_or_reordered(
    database: Database,
) -> None:
    async with AsyncExitStack() as stack:
        servers = cluster()
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))
        settings = NatsSettings(servers=tuple(server.url for server in servers), replicas=3)
        bus = await stack.enter_async_context(Bus(settings, name="credit-service"))
        await eventually(lambda: made(bus), within_seconds=PATIENCE_SECONDS)
        world = World(database, bus)

        async def write(key: int) -> None:
            for n in range(40):
                await world.add(key * 1000 + n, key=f"key {key}")

        async with running(world.relay()):
            writing = asyncio.gather(*(write(key) for key in range(4)))
            await eventually(lambda: some(world), within_seconds=PATIENCE_SECONDS)
            stream = await bus.js.stream_info(STREAM)
            leader = stream.cluster.leader if stream.cluster else None
            await kill(leader, servers)
            await writing
            await eventually(lambda: all_out(world), within_seconds=PATIENCE_SECONDS)
        numbers = await world.numbers()
        assert len(numbers) == 160
        for key in range(4):
            assert [n % 1000 for n in numbers if n // 1000 == key] == list(range(40))


async def test_the_leader_is_killed_and_each_effect_happens_once_and_in_order(
    database: Database,
) -> None:
    async with database.transaction() as session:
        await session.execute(text("CREATE TABLE effects (id serial, n int)"))

    async def effects() -> list[int]:
        async with database.transaction() as session:
            return list(await session.scalars(text("SELECT n FROM effects ORDER BY id")))

    async def handle(delivery: Delivery) -> None:
        envelope = Envelope.decode(delivery.body)
        n = envelope.payload["n"]
        if n == _POISON:
            raise RuntimeError("always")
        async with world.unit_of_work() as uow:
            if await Inbox(uow.session).accept("count", envelope.event_id):
                await uow.session.execute(text("INSERT INTO effects (n) VALUES (:n)"), {"n": n})

    async with AsyncExitStack() as stack:
        servers = cluster()
        await asyncio.gather(*(stack.enter_async_context(server) for server in servers))
        settings = NatsSettings(servers=tuple(server.url for server in servers), replicas=3)
        bus = await stack.enter_async_context(Bus(settings, name=SERVICE))
        await eventually(lambda: made(bus), within_seconds=PATIENCE_SECONDS)
        world = World(database, bus)
        sent = [key * 1000 + n for n in range(60) for key in range(4)]
        await eventually(
            lambda: all_stored(bus, [message(n) for n in sent]), within_seconds=PATIENCE_SECONDS
        )

        replicas = [Subscriber(bus, counting(handle), service=SERVICE) for _ in range(2)]
        tasks = [asyncio.create_task(replica.run()) for replica in replicas]
        await eventually(lambda: several(effects), within_seconds=PATIENCE_SECONDS)
        consumer = await bus.js.consumer_info(STREAM, "count")
        await kill(consumer.cluster.leader if consumer.cluster else None, servers)
        await eventually(lambda: as_many(effects, len(sent) - 1), within_seconds=PATIENCE_SECONDS)
        (letter,) = await DeadLetters(bus).list()
        for name in ("DEAD_LETTERS", "ATTEMPTS"):
            assert (await bus.js.stream_info(name)).config.num_replicas == 3, name
        await asyncio.gather(*(replica.drain(5) for replica in replicas), *tasks)

    assert Envelope.decode(letter.body).payload["n"] == _POISON
    found = await effects()
    assert len(found) == len(sent) - 1
    for key in range(4):
        mine = [n for n in sent if n // 1000 == key and n != _POISON]
        assert [n for n in found if n // 1000 == key] == mine


def counting(handle: Callable[[Delivery], Awaitable[None]]) -> Subscription:
    return Subscription(
        subject=COUNTED.subject,
        durable="count",
        handler=handle,
        stream=STREAM,
        concurrency=4,
        retry=RetryPolicy(attempts=2, first_delay_seconds=0.05),
        ack_wait_seconds=2,
        order_by=lambda delivery: str(Envelope.decode(delivery.body).payload["n"] // 1000),
    )


def message(n: int) -> OutgoingMessage:
    envelope = Envelope.create(COUNTED, Counted(n=n), source_service=SERVICE)
    return OutgoingMessage(COUNTED.subject, envelope.encode(), envelope.headers(), f"m{n}")


async def all_stored(bus: Bus, messages: list[OutgoingMessage]) -> bool:
    outcomes = await bus.publisher.publish_all(messages, ordered=True)
    return all(isinstance(outcome, PubAck) for outcome in outcomes)


async def several(effects: Callable[[], Awaitable[list[int]]]) -> bool:
    return len(await effects()) > 30


async def as_many(effects: Callable[[], Awaitable[list[int]]], count: int) -> bool:
    return len(await effects()) >= count


async def kill(leader: str | None, servers: list[NatsServer]) -> None:
    (victim,) = (server for server in servers if str(leader).startswith(f"{server.name}-"))
    await victim.kill()


async def made(bus: Bus) -> bool:
    """The servers have found each other and made the stream."""
    await bus.ensure_stream(STREAMS["CREDIT"])
    return True


async def some(world: World) -> bool:
    return any(row.published_at is not None for row in await world.rows())
