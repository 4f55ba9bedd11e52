"""A relay, in a process of its own, that sends itself a signal between publishing and marking."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

from shared.config import DatabaseSettings, DeliverySettings, NatsSettings
from shared.database import Database
from shared.delivery import Relay
from shared.messaging import Bus, OutgoingMessage, PubAck

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.errors import MessageBusError


class FaultyPublisher:
    def __init__(self, bus: Bus, fault: signal.Signals) -> None:
        self._bus = bus
        self._fault = fault

    async def publish_all(
        self, messages: Sequence[OutgoingMessage]
    ) -> list[PubAck | MessageBusError]:
        acks = await self._bus.publisher.publish_all(messages)
        os.kill(os.getpid(), self._fault)
        return acks


async def main(database_settings: str, nats_settings: str, fault: str) -> None:
    database = Database(DatabaseSettings.model_validate_json(database_settings), schema="credit")
    async with database, Bus(NatsSettings.model_validate_json(nats_settings), name="faulty") as bus:
        relay = Relay(
            database,
            FaultyPublisher(bus, signal.Signals[fault]),
            service="credit-service",
            settings=DeliverySettings(),
        )
        await relay.run()


asyncio.run(main(*sys.argv[1:]))
