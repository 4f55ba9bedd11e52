"""A relay, in a process of its own, that sends itself a signal before or after publishing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING

from shared.config import DatabaseSettings, DeliverySettings, NatsSettings
from shared.database import Database
from shared.delivery import Relay
from shared.messaging import Bus, OutgoingMessage, PubAck

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from shared.errors import MessageBusError

    Outcomes = list[PubAck | MessageBusError]


class FaultyPublisher:
    def __init__(self, bus: Bus, fault: signal.Signals, when: str) -> None:
        self._bus = bus
        self._fault = fault
        self._when = when

    async def publish_all(
        self, messages: Sequence[OutgoingMessage], *, keys: Sequence[str | None] | None = None
    ) -> Outcomes:
        return await self._faulty(partial(self._bus.publisher.publish_all, keys=keys), messages)

    async def publish_atomic(self, messages: Sequence[OutgoingMessage]) -> Outcomes:
        return await self._faulty(self._bus.publisher.publish_atomic, messages)

    async def _faulty(
        self,
        publish: Callable[[Sequence[OutgoingMessage]], Awaitable[Outcomes]],
        messages: Sequence[OutgoingMessage],
    ) -> Outcomes:
        if self._when == "before":
            sys.stdout.write("stopping\n")
            sys.stdout.flush()
            os.kill(os.getpid(), self._fault)
        results = await publish(messages)
        if self._when == "before":
            stored = sum(isinstance(r, PubAck) and not r.duplicate for r in results)
            sys.stdout.write(f"stored {stored}\n")
            sys.stdout.flush()
        else:
            os.kill(os.getpid(), self._fault)
        return results


async def main(
    database_settings: str, nats_settings: str, fault: str, when: str, atomic: str, fenced: str
) -> None:
    database = Database(DatabaseSettings.model_validate_json(database_settings), schema="credit")
    async with database, Bus(NatsSettings.model_validate_json(nats_settings), name="faulty") as bus:
        relay = Relay(
            database,
            FaultyPublisher(bus, signal.Signals[fault], when),
            service="credit-service",
            settings=DeliverySettings.model_validate(
                {"batch": 5000, "lease_seconds": 1.0, "atomic": atomic}
            ),
            bus=bus if fenced == "fenced" else None,
        )
        await relay.run()


asyncio.run(main(*sys.argv[1:]))
