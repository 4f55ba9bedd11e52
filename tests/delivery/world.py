"""What the tests of delivery speak about: a contract, and what is in the outbox and the stream."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import NotFoundError, ServiceUnavailableError
from pydantic import BaseModel
from sqlalchemy import text

from shared.config import DeliverySettings
from shared.delivery import Relay, UnitOfWork
from shared.events import Contract, Envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from sqlalchemy import Row

    from shared.database import Database
    from shared.delivery.relay.sender import Publishes
    from shared.messaging import Bus

T = TypeVar("T")

SERVICE = "credit-service"
STREAM = "CREDIT"
PATIENCE_SECONDS = 60.0


class Counted(BaseModel):
    n: int


COUNTED = Contract("evt.credit.counted", Counted)
HOMELESS = Contract("evt.merchant.counted", Counted)  # its stream is not there


@dataclass
class World:
    database: Database
    bus: Bus
    settings: DeliverySettings = field(default_factory=lambda: DeliverySettings(poll_seconds=0.05))

    def unit_of_work(self, **options: Any) -> UnitOfWork:
        return UnitOfWork(self.database, service=SERVICE, **options)

    def relay(self, publisher: Publishes | None = None) -> Relay:
        return Relay(
            self.database,
            publisher or self.bus.publisher,
            service=SERVICE,
            settings=self.settings,
            bus=self.bus,
        )

    async def add(self, *numbers: int, key: str | None = None, **options: Any) -> list[Envelope]:
        """Add events in one transaction."""
        async with self.unit_of_work() as uow:
            return [uow.outbox.add(COUNTED, Counted(n=n), key=key, **options) for n in numbers]

    async def rows(self) -> list[Row[Any]]:
        """The outbox, in order."""
        async with self.database.transaction() as session:
            return list((await session.execute(text("SELECT * FROM outbox ORDER BY id"))).all())

    async def unpublished(self) -> int:
        return sum(row.published_at is None for row in await self.rows())

    async def messages(self) -> list[tuple[Envelope, dict[str, str]]]:
        """The stream without its fences, in order."""
        last = (await patiently(lambda: self.bus.js.stream_info(STREAM))).state.last_seq
        found: list[tuple[Envelope, dict[str, str]]] = []
        for sequence in range(1, last + 1):
            with suppress(NotFoundError):
                message = await patiently(partial(self.bus.js.get_msg, STREAM, sequence))
                if message.subject is not None and message.subject.startswith("fence."):
                    continue
                assert message.data is not None
                found.append((Envelope.decode(message.data), dict(message.headers or {})))
        return found

    async def numbers(self) -> list[int]:
        """What was counted into the stream, in order."""
        return [envelope.payload["n"] for envelope, _ in await self.messages()]


@asynccontextmanager
async def running(*relays: Relay) -> AsyncIterator[None]:
    """Run the relays within the block."""
    tasks = [asyncio.create_task(relay.run()) for relay in relays]
    try:
        yield
        assert not any(task.done() for task in tasks), "a relay ended by itself"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is an answer: a cluster that elects a leader gives none."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            with suppress(NatsTimeoutError, NoRespondersError, ServiceUnavailableError):
                return await ask()
            await asyncio.sleep(0.05)


async def all_out(world: World) -> bool:
    """Something was added, and all of it is published."""
    return bool(await world.rows()) and await world.unpublished() == 0


async def listening(world: World) -> bool:
    """A relay's connection waits for NOTIFY."""
    async with world.database.transaction() as session:
        query = text("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
        return bool(await session.scalar(query))
