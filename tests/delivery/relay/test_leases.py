"""Replicas that come and go, and messages that wait."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import text

from shared.config import DeliverySettings
from shared.testing import eventually
from tests.delivery.world import World, running

if TYPE_CHECKING:
    from shared.delivery import Relay


async def test_partitions_are_shared_out_as_relays_come_and_go(world: World) -> None:
    world.settings = DeliverySettings(poll_seconds=0.05, lease_seconds=0.6)
    first, second, third = world.relay(), world.relay(), world.relay()
    async with running(first):
        await eventually(lambda: hold(16, first))
        async with running(second, third):
            await eventually(lambda: hold(16, first, second, third))
            await eventually(lambda: at_most(6, first, second, third))
            await world.add(*range(50))
            await eventually(lambda: counted(world, 50))
            await eventually(lambda: relayed(50, first, second, third))
            assert sorted(await world.numbers()) == list(range(50))
        await eventually(lambda: hold(16, first))


async def hold(partitions: int, *relays: Relay) -> bool:
    return sum(relay.status.partitions for relay in relays) == partitions


async def at_most(partitions: int, *relays: Relay) -> bool:
    return max(relay.status.partitions for relay in relays) <= partitions


async def relayed(messages: int, *relays: Relay) -> bool:
    # More if a lease ran out before the mark: the stream says then that it has the message.
    return sum(relay.status.relayed for relay in relays) >= messages


async def counted(world: World, messages: int) -> bool:
    return len(await world.numbers()) == messages


async def test_a_delayed_message_comes_later_and_holds_back_nothing(world: World) -> None:
    await world.add(1, key="k", delay=timedelta(hours=1))
    await world.add(2, key="k", delay=timedelta(hours=1))
    await world.add(3, key="k")
    relay = world.relay()
    async with running(relay):
        await eventually(lambda: counted(world, 1))
        assert await world.numbers() == [3]
        async with world.database.transaction() as session:  # an hour later, for the second
            await session.execute(text("UPDATE outbox SET available_at = now() WHERE id = 2"))
        await eventually(lambda: counted(world, 2))
        assert await world.numbers() == [3, 2]
        assert (await relay.backlog()).count == 0
    (far, *_) = await world.rows()
    assert far.published_at is None
