"""A handler's transaction that PostgreSQL ends for the sake of another is tried again at once."""

import asyncio
from typing import Any

from pydantic import BaseModel
from sqlalchemy import text

from shared.config import DatabaseSettings, NatsSettings
from shared.context import Context
from shared.delivery import UnitOfWork
from shared.events import Contract
from shared.service import Service, ServiceSettings


class Greeting(BaseModel):
    merchant: str


GREET = Contract("cmd.merchant.greet", Greeting)


async def test_a_conflict_is_no_failed_attempt(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    service: Service[Any] = Service("hello-service", publishes=[GREET])
    tries: list[str] = []  # the span of each: a delivery has one
    done = asyncio.Event()

    @service.handles(GREET)
    async def greet(greeting: Greeting, uow: UnitOfWork, context: Context) -> None:
        tries.append(context.trace.span_id)
        await uow.session.execute(text("CREATE TABLE greeted (name text)"))
        if len(tries) < 3:
            state = ("40001", "40P01")[len(tries) - 1]
            await uow.session.execute(text(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$"))
        done.set()

    settings = ServiceSettings(database=database_settings, nats=nats_settings)
    async with service.assemble(settings) as application:
        async with application.unit_of_work() as uow:
            uow.outbox.add(GREET, Greeting(merchant="ada"))
        async with asyncio.timeout(120):
            await done.wait()
    assert len(tries) == 3
    assert len(set(tries)) == 1, "it was handed over once"
