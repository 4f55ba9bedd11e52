"""A stream on three servers, of which the leader is killed under the relay."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from shared.config import NatsSettings
from shared.dev import NatsServer
from shared.dev.server import free_port
from shared.events import Streams
from shared.messaging import Bus
from tests.delivery.world import STREAM, World, all_out, eventually, running

if TYPE_CHECKING:
    from shared.database import Database


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
        await eventually(lambda: made(bus))
        world = World(database, bus)

        async def write(key: int) -> None:
            for n in range(40):
                await world.add(key * 1000 + n, key=f"key {key}")

        async with running(world.relay()):
            writing = asyncio.gather(*(write(key) for key in range(4)))
            await eventually(lambda: some(world))
            stream = await bus.js.stream_info(STREAM)
            leader = str(stream.cluster.leader if stream.cluster else None)
            (victim,) = (server for server in servers if leader.startswith(f"{server.name}-"))
            await victim.kill()
            await writing
            await eventually(lambda: all_out(world))
        numbers = await world.numbers()
        assert len(numbers) == 160
        for key in range(4):
            assert [n % 1000 for n in numbers if n // 1000 == key] == list(range(40))


async def made(bus: Bus) -> bool:
    """The servers have found each other and made the stream."""
    await bus.ensure_stream(Streams.CREDIT)
    return True


async def some(world: World) -> bool:
    return any(row.published_at is not None for row in await world.rows())
