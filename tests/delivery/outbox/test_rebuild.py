import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from shared.config import NatsSettings
from shared.delivery import read_outbox_status, rebuild_streams
from shared.errors import MessageBusError
from shared.messaging import Bus, OutgoingMessage
from tests.delivery.world import PATIENCE_SECONDS, World


async def lost(world: World) -> None:
    """Publish 40 messages, and lose the stream."""
    await world.add(*range(20), key="a")
    await world.add(*range(20, 40))
    assert await world.relay().drain()
    await world.bus.js.delete_stream("CREDIT")


async def test_a_lost_stream_is_filled_again_in_order_under_the_same_ids(world: World) -> None:
    await lost(world)
    before = {row.message_id: row.body for row in await world.rows()}
    looked = await rebuild_streams(world.database, world.bus, dry_run=True)
    assert (looked.kept, looked.present, looked.published) == (40, 0, 40)
    with pytest.raises(Exception, match="stream not found"):
        await world.bus.js.stream_info("CREDIT")
    done = await rebuild_streams(world.database, world.bus)
    assert (done.kept, done.present, done.published) == (40, 0, 40)
    messages = await world.messages()
    assert [e.payload["n"] for e, _ in messages if e.payload["n"] < 20] == list(range(20))
    assert {headers["Nats-Msg-Id"] for _, headers in messages} == before.keys()
    assert len(messages) == 40


async def ids_forgotten(bus: Bus) -> None:
    """Wait until the stream remembers no id of what it holds now; leave nothing in it."""
    probe = OutgoingMessage("evt.credit.probe", b"", {}, uuid4().hex)
    first = await bus.publisher.publish(probe)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (ack := await bus.publisher.publish(probe)).duplicate:
            await asyncio.sleep(0.05)
    for sequence in (first.sequence, ack.sequence):
        await bus.js.delete_msg("CREDIT", sequence)


async def test_it_may_be_repeated_and_leaves_alone_what_is_there(
    world: World, nats_settings: NatsSettings
) -> None:
    await lost(world)
    forgetful = nats_settings.model_copy(update={"dedupe_window_seconds": 0.1})
    async with Bus(forgetful, name="tests") as bus:
        await rebuild_streams(world.database, bus)
        for row in (await world.rows())[5:8]:
            await bus.js.delete_msg("CREDIT", row.stream_sequence)
        await ids_forgotten(bus)  # only the look-up is left
        done = await rebuild_streams(world.database, bus)
        assert (done.kept, done.present, done.published) == (40, 37, 3)
        await ids_forgotten(bus)
        again = await rebuild_streams(world.database, bus)
    assert (again.present, again.published) == (40, 0)
    assert sorted(await world.numbers()) == list(range(40))


async def test_what_was_deleted_and_counts_as_a_duplicate_is_not_told_as_published(
    world: World,
) -> None:
    await lost(world)
    await rebuild_streams(world.database, world.bus)
    for row in (await world.rows())[5:8]:
        await world.bus.js.delete_msg("CREDIT", row.stream_sequence)
    with pytest.raises(MessageBusError, match="no longer has 3 messages") as told:
        await rebuild_streams(world.database, world.bus)
    assert told.value.retryable
    looked = await rebuild_streams(world.database, world.bus, dry_run=True)
    assert (looked.present, looked.published) == (37, 3)


async def test_what_the_stream_has_elsewhere_is_found_there(world: World) -> None:
    await lost(world)
    await rebuild_streams(world.database, world.bus)
    async with world.database.transaction() as session:
        await session.execute(text("UPDATE outbox SET stream_sequence = NULL WHERE id <= 3"))
    done = await rebuild_streams(world.database, world.bus)
    assert (done.present, done.published) == (40, 0)
    assert (await rebuild_streams(world.database, world.bus, dry_run=True)).present == 40


async def test_only_what_was_asked_for_is_published(world: World) -> None:
    await lost(world)
    async with world.database.transaction() as session:
        await session.execute(
            text("UPDATE outbox SET created_at = now() - interval '2 days' WHERE id <= 30")
        )
    other = await rebuild_streams(world.database, world.bus, stream="CATALOG")
    assert (other.kept, other.published) == (0, 0)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    done = await rebuild_streams(
        world.database, world.bus, stream="CREDIT", since=yesterday, rate=1000
    )
    assert done.published == 10


async def test_what_waits_to_be_published_is_left_to_the_relay(world: World) -> None:
    await lost(world)
    await world.add(40)
    assert (await rebuild_streams(world.database, world.bus)).kept == 40
    assert (await read_outbox_status(world.database)).backlog.count == 1


async def test_a_rate_below_zero_is_refused(world: World) -> None:
    with pytest.raises(ValueError, match="above zero"):
        await rebuild_streams(world.database, world.bus, rate=0)


async def test_the_status_names_who_holds_the_partitions(world: World) -> None:
    await world.add(1, 2)
    free = await read_outbox_status(world.database)
    assert free.backlog.count == 2
    assert [lease.owner for lease in free.leases] == [None] * 16
    assert free.kept_since is not None
