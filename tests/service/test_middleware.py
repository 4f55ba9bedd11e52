"""Middleware of a service and of its handlers, and handlers that run in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from shared.config import NatsSettings, ServiceSettings
from shared.context import current
from shared.delivery import UnitOfWork, UnitOfWorkFactory
from shared.events import Contract
from shared.messaging import (
    BatchPolicy,
    Bus,
    CallNext,
    Delivery,
    OutgoingMessage,
    PubAck,
    PublishNext,
)
from shared.service import Service
from shared.testing import eventually

if TYPE_CHECKING:
    from shared.config import DatabaseSettings


class Greeting(BaseModel):
    merchant: str


GREET = Contract("cmd.merchant.greet", Greeting)
GREETED = Contract("evt.merchant.greeted", Greeting)


@pytest.fixture
def settings(database_settings: DatabaseSettings, nats_settings: NatsSettings) -> ServiceSettings:
    return ServiceSettings(database=database_settings, nats=nats_settings)


def mirrored(body: bytes) -> bytes:
    return body[::-1]


async def unmirror(delivery: Delivery, call_next: CallNext) -> None:
    await call_next(delivery.map(lambda each: each.replace(body=mirrored(each.body))))


async def mirror(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
    return await call_next(replace(message, body=mirrored(message.body)))


async def test_a_body_is_encrypted_by_the_relay_and_decrypted_before_it_is_read(
    settings: ServiceSettings,
) -> None:
    service = Service(
        "greeting-service",
        publishes=[GREET, GREETED],
        middleware=[unmirror],
        publish_middleware=[mirror],
    )
    seen: list[object] = []

    async def welcome(delivery: Delivery, call_next: CallNext) -> None:
        context = current()
        seen.append((delivery.payload.merchant, context and context.service))
        await call_next(delivery.replace(payload=Greeting(merchant="grace")))
        seen.append("left")

    @service.handles(GREET, middleware=[welcome])
    async def greet(greeting: Greeting, uow: UnitOfWork) -> None:
        seen.append(greeting.merchant)
        uow.outbox.add(GREETED, greeting)

    @service.handles(GREETED, batch=BatchPolicy(size=1))
    async def greeted(greetings: list[Greeting]) -> None:
        seen.extend(f"batch of {greeting.merchant}" for greeting in greetings)

    async with service.assemble(settings) as application:
        uows = application.provisions.get(UnitOfWorkFactory)

        async def ask(uow: UnitOfWork) -> None:
            uow.outbox.add(GREET, Greeting(merchant="ada"))

        await uows.run(ask)
        await eventually(lambda: len(seen) == 4)
        assert seen == [("ada", "greeting-service"), "grace", "left", "batch of grace"]
        stored = await application.bus.js.get_last_msg("MERCHANT", GREET.subject)
        assert stored.data is not None
        assert b"merchant" not in stored.data
        assert b'"merchant":"ada"' in mirrored(stored.data)


async def test_a_plain_function_runs_in_a_thread_in_its_messages_context(
    settings: ServiceSettings,
) -> None:
    service = Service("greeting-service", publishes=[GREET])
    seen: list[tuple[bool, str | None]] = []
    meeting = threading.Barrier(3)

    @service.handles(GREET)
    def greet(greeting: Greeting, settings: ServiceSettings) -> None:
        meeting.wait(20)  # three at a time, though each blocks
        context = current()
        here = threading.current_thread() is threading.main_thread()
        seen.append((here, context.service if context else None))

    async with service.assemble(settings) as application:
        uows = application.provisions.get(UnitOfWorkFactory)

        async def ask(uow: UnitOfWork) -> None:
            for name in ("ada", "bob", "eve"):
                uow.outbox.add(GREET, Greeting(merchant=name))

        await uows.run(ask)
        await eventually(lambda: len(seen) == 3)
        assert seen == [(False, "greeting-service")] * 3
        await eventually(lambda: settled(application.bus))


async def test_a_thread_is_waited_for_when_the_service_stops_and_its_message_is_done(
    settings: ServiceSettings,
) -> None:
    service = Service("greeting-service", publishes=[GREET])
    begun, ended = threading.Event(), threading.Event()

    @service.handles(GREET)
    def greet(greeting: Greeting) -> None:
        begun.set()
        time.sleep(1.5)
        ended.set()

    hasty = settings.model_copy(update={"drain_seconds": 0.1})
    async with service.assemble(hasty) as application:
        uows = application.provisions.get(UnitOfWorkFactory)

        async def ask(uow: UnitOfWork) -> None:
            uow.outbox.add(GREET, Greeting(merchant="ada"))

        await uows.run(ask)
        await asyncio.to_thread(begun.wait, 20)
        await application.drain()
        assert ended.is_set()
        await eventually(lambda: settled(application.bus))


async def test_a_plain_function_that_raises_what_no_future_takes_has_failed(
    settings: ServiceSettings,
) -> None:
    service = Service("greeting-service", publishes=[GREET])
    greeted: list[str] = []

    @service.handles(GREET)
    def greet(greeting: Greeting) -> None:
        greeted.append(greeting.merchant)
        if len(greeted) == 1:
            next(iter([]))

    async with service.assemble(settings) as application:
        uows = application.provisions.get(UnitOfWorkFactory)

        async def ask(uow: UnitOfWork) -> None:
            uow.outbox.add(GREET, Greeting(merchant="ada"))

        await uows.run(ask)
        await eventually(lambda: len(greeted) == 2)
        await eventually(lambda: settled(application.bus))


async def settled(bus: Bus) -> bool:
    info = await bus.js.consumer_info("MERCHANT", "greeting-service-greet")
    return not info.num_ack_pending and not info.num_pending
