"""A flow: an order is taken with its event, the event is relayed, and handled once."""

import asyncio
import json
import os
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy import text

from shared.config import DeliverySettings, LoggingSettings, ServiceSettings
from shared.database import Database
from shared.delivery import Relay, UnitOfWork
from shared.events import Contract
from shared.messaging import Bus, RetryPolicy
from shared.service import Service

TABLES = """\
CREATE SCHEMA proof;
CREATE TABLE proof.orders (scenario text PRIMARY KEY);
CREATE TABLE proof.effects (id bigint GENERATED ALWAYS AS IDENTITY, scenario text NOT NULL);
"""


class Taken(BaseModel):
    scenario: str


TAKEN = Contract("evt.credit.taken", Taken)
service = Service("proof-service", publishes=[TAKEN])


@service.handles(TAKEN, ack_wait_seconds=0.5, retry=RetryPolicy(attempts=50))
async def handle(taken: Taken, uow: UnitOfWork) -> None:
    await uow.session.execute(
        text("INSERT INTO proof.effects (scenario) VALUES (:scenario)"), taken.model_dump()
    )


def settings_from(database: str, nats: str) -> ServiceSettings:
    return ServiceSettings.model_validate(
        {
            "database": json.loads(database),
            "nats": json.loads(nats),
            "delivery": DeliverySettings(poll_seconds=0.1),
            "logging": LoggingSettings(level="WARNING", format="json"),
            "drain_seconds": 5,
        }
    )


async def run(scenario: str, database: str, nats: str) -> None:
    """Take the order unless it is taken, and stay until its effect is there and acknowledged."""
    async with service.assemble(settings_from(database, nats)) as application:
        taken = False
        while not taken:
            try:
                async with application.unit_of_work() as uow:
                    new = await uow.session.scalar(
                        text(
                            "INSERT INTO proof.orders VALUES (:scenario)"
                            " ON CONFLICT DO NOTHING RETURNING true"
                        ),
                        {"scenario": scenario},
                    )
                    if new:
                        event = Taken(scenario=scenario)
                        uow.outbox.add(TAKEN, event, key=scenario)
                taken = True
            except Exception:  # noqa: BLE001 - a broken commit is not known to be one: ask again
                await asyncio.sleep(0.05)
        while True:
            try:
                if await done(application, scenario):
                    return
            except Exception:  # noqa: BLE001 - the database or the bus is away for a moment
                pass
            await asyncio.sleep(0.02)


async def relay(scenario: str, database: str, nats: str) -> None:
    """A relay alone: it publishes three events of one key, which are there from the start."""
    settings = settings_from(database, nats)
    delivery = DeliverySettings(poll_seconds=0.05, lease_seconds=1)
    async with (
        Database(settings.database, schema="proof") as outbox,
        Bus(settings.nats, name="proof-relay") as bus,
    ):
        async with outbox.transaction() as session:
            written = await session.scalar(
                text("SELECT count(*) FROM outbox WHERE key = :key"), {"key": scenario}
            )
        if not written:
            async with UnitOfWork(outbox, service="proof-service") as uow:
                for number in range(3):
                    uow.outbox.add(TAKEN, Taken(scenario=f"{scenario} {number}"), key=scenario)
        one = Relay(outbox, bus.publisher, service="proof-service", settings=delivery, bus=bus)
        running = asyncio.create_task(one.run())
        waiting = 3
        while waiting:
            await asyncio.sleep(0.02)
            async with outbox.transaction() as session:
                waiting = await session.scalar(
                    text("SELECT count(*) FROM outbox WHERE key = :key AND published_at IS NULL"),
                    {"key": scenario},
                )
        running.cancel()
        await asyncio.wait([running])


async def done(application: object, scenario: str) -> bool:
    database, bus = application.database, application.bus  # type: ignore[attr-defined]
    async with database.transaction() as session:
        effects = await session.scalar(
            text("SELECT count(*) FROM proof.effects WHERE scenario = :s"), {"s": scenario}
        )
        waiting = await session.scalar(
            text("SELECT count(*) FROM outbox WHERE published_at IS NULL")
        )
    if not effects or waiting:
        return False
    info = await bus.js.consumer_info("CREDIT", "proof-service-handle")
    return not (info.num_pending or info.num_ack_pending)


async def fail(scenario: str) -> None:
    raise RuntimeError(f"{scenario} cannot end well")


async def hang(scenario: str) -> None:
    await asyncio.sleep(3600)


async def forgetful(scenario: str, ledger: str) -> None:
    """Broken on purpose: it notes that it has done its work before it does it."""
    if not await noted(ledger, scenario, "done"):
        await note(ledger, scenario, "done")
        await note(ledger, scenario, "effect")


async def repeating(scenario: str, ledger: str) -> None:
    """Broken on purpose: it does its work before it notes so."""
    if not await noted(ledger, scenario, "done"):
        await note(ledger, scenario, "effect")
        await note(ledger, scenario, "done")


async def note(ledger: str, scenario: str, word: str) -> None:
    file = os.open(ledger, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(file, f"{scenario} {word}\n".encode())
    os.close(file)


async def noted(ledger: str, scenario: str, word: str) -> bool:
    path = Path(ledger)
    return path.exists() and f"{scenario} {word}" in path.read_text().splitlines()
