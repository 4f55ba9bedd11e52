"""Events are committed with rows and published once, in the order of their key."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from shared.config import DeliverySettings, NatsSettings
from shared.delivery import Relay
from shared.events import Envelope
from shared.messaging import Bus
from shared.testing.faults import killed
from shared.testing.suites.base import ContractSuite, ServiceSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from shared.config import DatabaseSettings
    from shared.database import Database
    from shared.delivery.relay.sender import Publishes
    from shared.dev import NatsServer
    from shared.errors import MessageBusError
    from shared.messaging import OutgoingMessage, PubAck


_MANY = 30
_KEYS = 3


class _Undo(Exception):  # noqa: N818 - no error, a wish
    pass


class _Dying:
    """Publishes, and never comes to say so."""

    def __init__(self, publisher: Publishes) -> None:
        self._publisher = publisher
        self.published = asyncio.Event()

    async def publish_all(
        self, messages: Sequence[OutgoingMessage], *, keys: Sequence[str | None] | None = None
    ) -> list[PubAck | MessageBusError]:
        acks = await self._publisher.publish_all(messages, keys=keys)
        self.published.set()
        await asyncio.Event().wait()
        return acks


class OutboxSuite(ContractSuite, ServiceSuite):
    """The outbox of a service. Set `service`, `contract` (one it publishes) and `payload`."""

    async def add(self, database: Database, *numbers: int) -> list[str]:
        """Commit the events of the numbers, each with its key; return their ids."""
        async with self.unit_of_work(database) as uow:
            return [
                uow.outbox.add(
                    self.contract, self.payload(number), key=f"key-{number % _KEYS}"
                ).event_id
                for number in numbers
            ]

    async def stored(self, bus: Bus) -> list[str]:
        """The ids of the events in the stream, in their order."""
        name = self.service.streams.of(self.contract).name
        state = (await bus.js.stream_info(name)).state
        messages = [
            await bus.js.get_msg(name, sequence)
            for sequence in range(state.first_seq, state.last_seq + 1)
        ]
        return [Envelope.decode(message.data or b"").event_id for message in messages]

    @asynccontextmanager
    async def relaying(self, database: Database, publisher: Publishes) -> AsyncIterator[Relay]:
        """Run a relay within the block."""
        relay = Relay(
            database,
            publisher,
            service=self.service.name,
            settings=DeliverySettings(poll_seconds=0.05),
        )
        running = asyncio.create_task(relay.run())
        try:
            yield relay
        finally:
            running.cancel()
            await asyncio.wait([running])

    @asynccontextmanager
    async def world(
        self, database: DatabaseSettings, nats: NatsSettings
    ) -> AsyncIterator[tuple[Database, Bus]]:
        """Open the database and the bus, with the stream."""
        async with self.database(database) as opened, Bus(nats, name="contract-tests") as bus:
            await bus.ensure_stream(self.service.streams.of(self.contract))
            yield opened, bus

    async def all_published(self, database: Database) -> bool:
        """Tell whether the outbox has nothing left to do."""
        async with database.transaction() as session:
            query = text("SELECT count(*) FROM outbox WHERE published_at IS NULL")
            return not await session.scalar(query)

    async def test_what_is_undone_is_never_published(
        self, database_settings: DatabaseSettings, nats_settings: NatsSettings
    ) -> None:
        async with self.world(database_settings, nats_settings) as (database, bus):
            with pytest.raises(_Undo):
                async with self.unit_of_work(database) as uow:
                    uow.outbox.add(self.contract, self.payload(1))
                    await uow.session.flush()
                    raise _Undo
            (event,) = await self.add(database, 2)
            async with self.relaying(database, bus.publisher):
                await self.eventually(lambda: self.stored(bus))
                await self.eventually(lambda: self.all_published(database))
            assert await self.stored(bus) == [event]

    async def test_what_is_committed_is_published_once_in_the_order_of_its_key(
        self, database_settings: DatabaseSettings, nats_settings: NatsSettings
    ) -> None:
        async with self.world(database_settings, nats_settings) as (database, bus):
            events: list[str] = []
            async with AsyncExitStack() as stack:
                for _ in range(2):  # replicas
                    await stack.enter_async_context(self.relaying(database, bus.publisher))
                for number in range(_MANY):
                    events += await self.add(database, number)
                await self.eventually(lambda: self.all_published(database))
            self._hold(events, await self.stored(bus))

    async def test_a_relay_that_dies_after_publishing_publishes_nothing_twice(
        self, database_settings: DatabaseSettings, nats_settings: NatsSettings
    ) -> None:
        async with self.world(database_settings, nats_settings) as (database, bus):
            events = await self.add(database, *range(_MANY))
            dying = _Dying(bus.publisher)
            async with self.relaying(database, dying):
                async with asyncio.timeout(self.timeout_seconds):
                    await dying.published.wait()
            assert not await self.all_published(database)
            async with self.relaying(database, bus.publisher):
                await self.eventually(lambda: self.all_published(database))
            self._hold(events, await self.stored(bus))

    async def test_what_is_committed_while_the_bus_is_away_is_published_when_it_is_back(
        self, database_settings: DatabaseSettings, own_nats_server: NatsServer
    ) -> None:
        nats = NatsSettings(servers=(own_nats_server.url,))
        async with self.world(database_settings, nats) as (database, bus):
            async with self.relaying(database, bus.publisher):
                async with killed(own_nats_server):
                    events = await self.add(database, *range(_MANY))
                await self.eventually(lambda: self.all_published(database))
            self._hold(events, await self.stored(bus))

    def _hold(self, events: list[str], stored: list[str]) -> None:
        assert sorted(stored) == sorted(events)
        for key in range(_KEYS):
            of_key = events[key::_KEYS]
            assert [event for event in stored if event in of_key] == of_key
