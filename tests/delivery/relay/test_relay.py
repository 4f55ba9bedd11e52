import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.config import DatabaseSettings, DeliverySettings, NatsSettings
from shared.context import Context, TraceContext, bind
from shared.database import Database, migrate
from shared.delivery import Relay
from shared.delivery.outbox import status
from shared.delivery.relay import leases
from shared.delivery.relay import relay as relays
from shared.delivery.relay.leases import LeasedOutbox
from shared.delivery.relay.sender import Publishes
from shared.dev import NatsServer, PostgresServer, TcpProxy
from shared.errors import MessageBusError
from shared.events import Envelope
from shared.messaging import Bus, OutgoingMessage, PubAck, Publisher
from shared.platform.streams import STREAMS
from shared.testing import eventually, faults
from tests.delivery.world import (
    COUNTED,
    HOMELESS,
    PATIENCE_SECONDS,
    SERVICE,
    Counted,
    World,
    all_out,
    listening,
    running,
)

_WINDOW_SECONDS = 0.5


class Spy:
    """Passes on and remembers."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self.sent: list[str] = []

    async def publish_all(
        self, messages: Sequence[OutgoingMessage], *, keys: Sequence[str | None] | None = None
    ) -> list[PubAck | MessageBusError]:
        messages = list(messages)
        self.sent += [message.message_id for message in messages]
        return await self._bus.publisher.publish_all(messages, keys=keys)


async def test_commit_publishes_once(world: World) -> None:
    relay = world.relay()
    async with running(relay):
        await world.add(1, 2, 3)
        relay.wake()
        await eventually(lambda: all_out(world))
    assert await world.numbers() == [1, 2, 3]
    rows = await world.rows()
    for row in rows:
        stored = await world.bus.js.get_msg("CREDIT", row.stream_sequence)
        assert stored.data == row.body
    assert relay.status.relayed == 3
    assert not relay.status.running
    assert (await relay.backlog()).count == 0


async def test_notify_wakes_a_relay_that_would_not_poll_for_an_hour(world: World) -> None:
    world.settings = DeliverySettings(poll_seconds=3600)
    relay = world.relay()
    async with running(relay):
        await eventually(lambda: listening(world))
        await world.add(1)
        await eventually(lambda: all_out(world))


async def test_the_listener_heals(world: World) -> None:
    world.settings = DeliverySettings(poll_seconds=3600)
    async with running(world.relay()):
        for n in range(2):
            await eventually(lambda: listening(world))
            await world.add(n)
            await eventually(lambda: all_out(world))
            async with world.database.transaction() as session:
                await session.execute(
                    text("""SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                    WHERE query LIKE 'LISTEN%'""")
                )


async def test_without_notify_polling_finds_it(world: World) -> None:
    world.settings = DeliverySettings(poll_seconds=0.05, notify=False)
    async with running(world.relay()):
        async with world.unit_of_work(notify=False) as uow:
            uow.outbox.add(COUNTED, Counted(n=1))
        await eventually(lambda: all_out(world))


async def test_drain_publishes_what_is_due_and_says_so(world: World) -> None:
    world.settings = DeliverySettings(batch=3)
    await world.add(*range(10))
    await world.add(10, delay=timedelta(hours=1))
    assert await world.relay().drain()
    assert sorted(await world.numbers()) == list(range(10))
    assert (await world.relay().backlog()).count == 0


class Refusing(Spy):
    """Refuses one number so many times."""

    def __init__(self, bus: Bus, number: int, times: int) -> None:
        super().__init__(bus)
        self._number = number
        self._times = times

    async def publish_all(
        self, messages: Sequence[OutgoingMessage], *, keys: Sequence[str | None] | None = None
    ) -> list[PubAck | MessageBusError]:
        results: list[PubAck | MessageBusError] = []
        held: set[str | None] = set()
        for message, key in zip(messages, keys or [None] * len(messages), strict=True):
            if key in held:
                results.append(MessageBusError("held back", details={"held_back": True}))
            elif Envelope.decode(message.body).payload["n"] == self._number and self._times:
                self._times -= 1
                results.append(MessageBusError("not now"))
                held |= {key} - {None}
            else:
                results += await super().publish_all([message])
        return results


async def test_a_message_that_fails_holds_back_its_key_and_nothing_else(world: World) -> None:
    await world.add(0, 1, 2, key="a")
    await world.add(10, 11, 12, key="b")
    await world.add(20, 21)
    relay = world.relay(Refusing(world.bus, 1, times=2))
    assert not await relay.drain()
    assert sorted(await world.numbers()) == [0, 10, 11, 12, 20, 21]
    failed = (await world.rows())[1]
    assert failed.attempts == 1
    assert failed.last_error == "not now"
    await world.add(3, key="a")
    async with running(relay):
        await eventually(lambda: all_out(world))
    numbers = await world.numbers()
    assert [n for n in numbers if n < 10] == [0, 1, 2, 3]
    assert [n for n in numbers if 10 <= n < 20] == [10, 11, 12]
    assert len(numbers) == 9


async def test_of_two_that_failed_the_later_waits_for_the_next_attempt_of_the_earlier(
    world: World,
) -> None:
    await world.add(0, 1, 2, key="a")
    relay = world.relay(Refusing(world.bus, 0, times=1))
    async with world.database.transaction() as session:
        await session.execute(
            text(
                "UPDATE outbox SET attempts = 2 - (id % 2), available_at = now() "
                "+ (CASE WHEN id = (SELECT min(id) FROM outbox) THEN 60 ELSE 0 END) "
                "* interval '1 second'"
            )
        )
    assert await relay.drain()
    assert await world.numbers() == []
    async with world.database.transaction() as session:
        await session.execute(text("UPDATE outbox SET available_at = now()"))
    assert not await relay.drain()
    assert await world.numbers() == []
    async with running(relay):
        await eventually(lambda: all_out(world))
    assert await world.numbers() == [0, 1, 2]


async def test_what_was_added_before_the_database_s_clock_went_back_keeps_its_place(
    world: World,
) -> None:
    await world.add(0, key="a")
    async with world.database.transaction() as session:
        await session.execute(
            text("UPDATE outbox SET available_at = available_at + interval '1 hour'")
        )
    await world.add(1, key="a")
    assert (await world.relay().backlog()).count == 2
    assert await world.relay().drain()
    assert await world.numbers() == [0, 1]


async def test_what_never_gets_through_does_not_stop_the_rest(world: World) -> None:
    world.settings = DeliverySettings(batch=5, poll_seconds=0.05)
    async with world.unit_of_work() as uow:
        for n in range(20):
            uow.outbox.add(HOMELESS, Counted(n=n), key=f"k{n}")
    relay = world.relay()
    async with running(relay):
        await eventually(lambda: failing(relay, 20))
        await world.add(1, 2, 3)
        await eventually(lambda: counted(world, [1, 2, 3]))
        assert await failing(relay, 20)
        await world.bus.ensure_stream(STREAMS["MERCHANT"])
        async with world.database.transaction() as session:
            await session.execute(text("UPDATE outbox SET available_at = now()"))
        await eventually(lambda: all_out(world))
    assert (await relay.backlog()).failing == 0


class CancelledOnce:
    """A publisher whose first call is cancelled by nobody who was asked."""

    def __init__(self, publisher: Publishes) -> None:
        self._publisher = publisher
        self._called = False

    async def publish_all(
        self, messages: Sequence[OutgoingMessage], *, keys: Sequence[str | None] | None = None
    ) -> list[PubAck | MessageBusError]:
        if not self._called:
            self._called = True
            raise asyncio.CancelledError
        return await self._publisher.publish_all(messages, keys=keys)


async def test_a_publisher_that_is_cancelled_from_within_does_not_end_the_relay(
    world: World,
) -> None:
    relay = world.relay(CancelledOnce(world.bus.publisher))
    await world.add(1)
    async with running(relay):
        await eventually(lambda: all_out(world))
        assert relay.status.running
    assert await world.numbers() == [1]
    assert not relay.status.running


async def failing(relay: Relay, count: int) -> bool:
    return (await relay.backlog()).failing == count


async def counted(world: World, numbers: list[int]) -> bool:
    return await world.numbers() == numbers


async def test_two_relays_at_once_keep_order_and_send_nothing_twice(
    world: World, nats_settings: NatsSettings, database_settings: DatabaseSettings
) -> None:
    async with (
        Database(database_settings, schema="credit") as other_database,
        Bus(nats_settings, name="other") as other_bus,
    ):
        other = World(other_database, other_bus, world.settings)
        spies = Spy(world.bus), Spy(other_bus)
        relays = world.relay(spies[0]), other.relay(spies[1])

        async def write(key: int) -> None:
            for n in range(20):
                await world.add(key * 1000 + n, key=f"key {key}")
                for relay in relays:
                    relay.wake()

        async with running(*relays):
            await asyncio.gather(*(write(key) for key in range(5)))
            await eventually(lambda: all_out(world))
    sent = spies[0].sent + spies[1].sent
    assert len(sent) == len(set(sent)) == 100
    numbers = await world.numbers()
    for key in range(5):
        assert [n % 1000 for n in numbers if n // 1000 == key] == list(range(20))


@asynccontextmanager
async def faulty_relay(
    world: World, fault: signal.Signals, *, when: str, atomic: str = "off"
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a relay that does this to itself at its first publication; killed in the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parents[1] / "faulty_relay.py"),
        world.database.settings.model_dump_json(),
        world.bus.settings.model_dump_json(),
        fault.name,
        when,
        atomic,
        "fenced",
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("atomic", ["auto", "off"])
async def test_a_relay_that_dies_or_freezes_after_publishing_doubles_nothing(
    world: World, fault: signal.Signals, atomic: str
) -> None:
    await world.add(*range(100), key="all")
    await world.add(*range(100, 300))
    async with faulty_relay(world, fault, when="after", atomic=atomic) as process:
        await eventually(lambda: started(world))
        if fault is signal.SIGKILL:
            assert await process.wait() == -signal.SIGKILL
        assert await world.unpublished() == 300
        async with running(world.relay()):
            await eventually(lambda: all_out(world))
            if fault is signal.SIGSTOP:
                process.send_signal(signal.SIGCONT)  # it stops itself again in its next turn
    numbers = await world.numbers()
    assert sorted(numbers) == list(range(300))
    assert [n for n in numbers if n < 100] == list(range(100))


async def started(world: World) -> bool:
    """The faulty relay has published its first wave: the keyless ones and the first of the key."""
    return len(await world.numbers()) > 200


@pytest.mark.parametrize("atomic", ["auto", "off"])
async def test_a_relay_that_froze_with_messages_in_hand_is_refused_by_the_stream(
    world: World, atomic: str
) -> None:
    """Frozen for longer than its lease and the window in which the stream knows duplicates."""
    stream = (await world.bus.js.stream_info("CREDIT")).config
    await world.bus.js.update_stream(replace(stream, duplicate_window=_WINDOW_SECONDS))
    await world.add(*range(50), key="all")
    async with faulty_relay(world, signal.SIGSTOP, when="before", atomic=atomic) as process:
        assert await line(process) == "stopping"
        async with running(world.relay()):
            await eventually(lambda: all_out(world))
            await world.add(*range(50, 60), key="all")
            await eventually(lambda: all_out(world))
        await asyncio.sleep(_WINDOW_SECONDS * 2)
        process.send_signal(signal.SIGCONT)
        assert await line(process) == "stored 0"
    assert await world.numbers() == list(range(60))


async def leases_of(world: World, pid: int) -> bool:
    """A relay in the process holds its share of the partitions."""
    async with world.database.transaction() as session:
        query = text("SELECT count(*) FROM outbox_leases WHERE owner LIKE :owner")
        return bool(await session.scalar(query, {"owner": f"%:{pid}:%"}))


async def test_of_several_relays_one_is_killed_and_nothing_is_lost_or_reordered(
    world: World,
) -> None:
    world.settings = DeliverySettings(poll_seconds=0.05, lease_seconds=1.0)

    async def write(key: int) -> None:
        for n in range(30):
            await world.add(key * 1000 + n, key=f"key {key}")

    async with (
        faulty_relay(world, signal.SIGKILL, when="after", atomic="auto") as victim,
        running(world.relay(), world.relay()),
    ):
        await eventually(lambda: leases_of(world, victim.pid))
        await asyncio.gather(*(write(key) for key in range(12)))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await victim.wait()
        assert victim.returncode == -signal.SIGKILL
        await eventually(lambda: all_out(world))
    numbers = await world.numbers()
    assert len(numbers) == 360
    for key in range(12):
        assert [n % 1000 for n in numbers if n // 1000 == key] == list(range(30))


@asynccontextmanager
async def lame_duck(server: NatsServer) -> AsyncIterator[None]:
    """The server sends its clients away, and comes back."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGUSR2)
    yield
    await server.restart()


@pytest.mark.parametrize("fault", [faults.killed, lame_duck, faults.full_disk])
async def test_nats_goes_and_comes_back_and_everything_arrives_in_order(
    database: Database,
    own_nats_server: NatsServer,
    caplog: pytest.LogCaptureFixture,
    fault: Callable[[NatsServer], AbstractAsyncContextManager[None]],
) -> None:
    async with Bus(NatsSettings(servers=(own_nats_server.url,)), name=SERVICE) as bus:
        await bus.ensure_stream(STREAMS["CREDIT"])
        world = World(database, bus)
        relay = world.relay()
        added = 2
        async with running(relay):
            await world.add(0, 1, key="k")
            await eventually(lambda: all_out(world))
            async with fault(own_nats_server), asyncio.timeout(PATIENCE_SECONDS):
                await world.add(100_000, 100_001)
                while not await stalled(relay):
                    await world.add(added, key="k")
                    added += 1
                    await asyncio.sleep(0.1)
            await eventually(lambda: all_out(world))
        numbers = await world.numbers()
    assert [n for n in numbers if n < 100_000] == list(range(added))
    assert sorted(numbers) == [*range(added), 100_000, 100_001]
    assert any(r.levelno == logging.ERROR and "not published" in r.message for r in caplog.records)
    assert relay.status.last_error is None


async def stalled(relay: Relay) -> bool:
    return relay.status.failed_turns > 1 and relay.status.last_error is not None


async def test_postgres_restarts_and_the_relay_heals(
    own_postgres_server: PostgresServer, bus: Bus
) -> None:
    async with Database(own_postgres_server.settings, schema="credit") as database:
        await migrate(database, migrations="shared.delivery.migrations")
        world = World(database, bus)
        relay = world.relay()
        async with running(relay):
            await world.add(1)
            await eventually(lambda: counted(world, [1]))
            await own_postgres_server.kill()
            await eventually(lambda: stalled(relay))
            assert not await relay.drain()
            await own_postgres_server.start()
            await eventually(lambda: added(world, 2))
            await eventually(lambda: all_out(world))
        assert await world.numbers() == [1, 2]
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


async def test_what_is_back_is_made_use_of_at_once_however_long_the_pause(
    world: World, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "_pause_seconds", lambda _: 3600.0)
    settings = world.database.settings
    async with (
        TcpProxy(nats_server.host, nats_server.port) as to_nats,
        TcpProxy(settings.host, settings.port) as to_postgres,
        Bus(NatsSettings(servers=(f"nats://{to_nats.address}",)), name=SERVICE) as bus,
        Database(settings.model_copy(update={"port": to_postgres.port}), schema="credit") as far,
    ):
        relay = World(far, bus).relay(Publisher(bus, timeout_seconds=0.2))
        async with running(relay):
            await world.add(1)
            await eventually(lambda: all_out(world))
            for number, proxy in enumerate((to_nats, to_postgres), start=2):
                proxy.refuse()
                proxy.cut()
                await world.add(number)
                await eventually(lambda: failed(relay))
                proxy.accept()
                await eventually(lambda: all_out(world))
        assert await world.numbers() == [1, 2, 3]


async def failed(relay: Relay) -> bool:
    return relay.status.failed_turns > 0


async def added(world: World, number: int) -> bool:
    await world.add(number)
    return True


async def test_the_producers_span_is_between_the_one_that_added_and_the_consumers(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "shared.tracing")
    with bind(Context.start(correlation_id="order-7")) as context:
        await world.add(1)
    await world.relay().drain()
    (record,) = [r for r in caplog.records if r.name == "shared.tracing"]
    ((_, headers),) = await world.messages()
    (row,) = await world.rows()
    consumers_parent = TraceContext.parse(headers["traceparent"])
    assert consumers_parent is not None
    fields = record.__dict__
    assert fields["span"] == "publish evt.credit.counted"
    assert fields["kind"] == "producer"
    assert fields["trace_id"] == consumers_parent.trace_id == context.trace.trace_id
    assert fields["span_id"] == consumers_parent.span_id
    assert fields["parent_span_id"] == context.trace.span_id
    assert fields["attributes"]["sequence"] == row.stream_sequence


async def test_without_spans_the_trace_goes_on_from_where_the_event_was_added(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "shared.tracing")
    world.settings = DeliverySettings(spans=False)
    with bind(Context.start()) as context:
        await world.add(1)
    await world.relay().drain()
    ((_, headers),) = await world.messages()
    assert headers["traceparent"] == context.trace.traceparent
    assert [r for r in caplog.records if r.name == "shared.tracing"] == []


async def test_an_event_added_outside_of_any_trace_starts_one(world: World) -> None:
    await world.add(1)
    await world.relay().drain()
    ((_, headers),) = await world.messages()
    assert TraceContext.parse(headers["traceparent"]) is not None


async def test_a_deep_outbox_is_read_by_its_partial_indexes_alone(world: World) -> None:
    async with world.database.transaction() as session:
        # Not analysed: the planner believes in a handful of rows, and must not act on it.
        await session.execute(
            text("""INSERT INTO outbox
            (event_id, subject, message_id, headers, body, published_at)
            SELECT n, 's', n, '{}', '', now() FROM generate_series(1, 20000) n""")
        )
    outbox = LeasedOutbox(world.database, lease_seconds=60)
    await outbox.renew(share=True)
    async with outbox._reached("relay") as connection:
        due = await connection.fetch(f"EXPLAIN {leases._DUE}", outbox.owner, 500, 50)
    async with world.database.transaction() as session:
        await session.execute(text("ANALYZE outbox"))
        backlog = await session.scalars(text(f"EXPLAIN {status.BACKLOG}"))
    outbox.close()
    for plan in ("\n".join(row[0] for row in due), "\n".join(backlog)):
        assert "Seq Scan on outbox " not in plan
        assert "outbox_pkey" not in plan
        for index in ("ix_outbox_due", "ix_outbox_delayed", "ix_outbox_failing"):
            assert index in plan
