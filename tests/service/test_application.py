"""A running service on real servers: what happens once, what is undone, what is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from pydantic import BaseModel
from sqlalchemy import text

from shared.config import (
    ConfigError,
    DatabaseSettings,
    DeliverySettings,
    NatsSettings,
    ServiceSettings,
)
from shared.context import current
from shared.delivery import UnitOfWork
from shared.errors import ConflictError, ValidationError
from shared.events import Contract, Envelope
from shared.messaging import DeadLetters, OutgoingMessage
from shared.service import Application, DeclarationError, Provided, Service, UnitOfWorkDep
from shared.testing import eventually


class Greeting(BaseModel):
    merchant: str


GREET = Contract("cmd.merchant.greet", Greeting)
GREETED = Contract("evt.merchant.greeted", Greeting)


class Diary:
    """What handlers saw."""

    def __init__(self) -> None:
        self.entries: list[str] = []


def hello_service(diary: Diary) -> Service[ServiceSettings]:
    service = Service("hello-service", publishes=[GREET, GREETED])

    @service.provides
    async def the_diary() -> AsyncIterator[Diary]:
        yield diary
        diary.entries.append("closed")

    @service.router.post("/greetings", status_code=202)
    async def ask(greeting: Greeting, uow: UnitOfWorkDep) -> Greeting:
        uow.outbox.add(GREET, greeting)
        if greeting.merchant == "nobody":
            raise ConflictError("nobody is not greeted")
        return greeting

    @service.router.get("/diary")
    async def read(kept: Annotated[Diary, Provided(Diary)]) -> list[str]:
        return kept.entries

    @service.handles(GREET)
    async def greet(greeting: Greeting, uow: UnitOfWork, diary: Diary) -> None:
        diary.entries.append(f"greet {greeting.merchant}")
        if greeting.merchant == "rude":
            raise ValidationError("rude merchants are not greeted")
        uow.outbox.add(GREETED, greeting)

    @service.handles(GREETED)
    async def remember(greeting: Greeting, envelope: Envelope, diary: Diary) -> None:
        context = current()
        assert context is not None
        assert envelope.subject == GREETED.subject
        diary.entries.append(f"greeted {greeting.merchant} in {context.correlation_id}")

    return service


@asynccontextmanager
async def running(
    service: Service[ServiceSettings], database: DatabaseSettings, nats: NatsSettings
) -> AsyncIterator[tuple[Application[ServiceSettings], httpx.AsyncClient]]:
    settings = ServiceSettings(database=database, nats=nats)
    async with (
        service.assemble(settings) as application,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(application.app), base_url="http://hello/api/v1"
        ) as client,
    ):
        yield application, client


async def test_an_inbox_that_forgets_before_its_stream_does_keeps_the_service_from_starting(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    short = DeliverySettings(inbox_retention_hours=24)
    settings = ServiceSettings(database=database_settings, nats=nats_settings, delivery=short)
    with pytest.raises(ConfigError, match=r"inbox_retention_hours.* set at least 168"):
        async with hello_service(Diary()).assemble(settings):
            pass


async def test_an_event_added_in_a_route_reaches_its_handlers_with_the_callers_correlation_id(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    diary = Diary()
    async with running(hello_service(diary), database_settings, nats_settings) as (_, client):
        answer = await client.post(
            "/greetings", json={"merchant": "ada"}, headers={"X-Correlation-ID": "order-7"}
        )
        assert answer.status_code == 202
        await eventually(lambda: len(diary.entries) == 2)
    assert diary.entries == ["greet ada", "greeted ada in order-7", "closed"]


async def test_an_event_of_a_route_that_fails_is_never_sent(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    diary = Diary()
    async with running(hello_service(diary), database_settings, nats_settings) as (app, client):
        assert (await client.post("/greetings", json={"merchant": "nobody"})).status_code == 409
        await client.post("/greetings", json={"merchant": "ada"})
        await eventually(lambda: "greet ada" in diary.entries)
        async with app.database.transaction() as session:
            rows = await session.scalar(
                text("SELECT count(*) FROM outbox WHERE subject LIKE 'cmd%'")
            )
    assert rows == 1
    assert "greet nobody" not in diary.entries


async def test_a_message_in_the_stream_twice_takes_effect_once(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    diary = Diary()
    async with running(hello_service(diary), database_settings, nats_settings) as (app, client):
        envelope = Envelope.create(GREET, Greeting(merchant="ada"), source_service="test-service")
        for number in range(3):
            await app.bus.publisher.publish(
                OutgoingMessage(
                    subject=GREET.subject,
                    body=envelope.encode(),
                    headers=envelope.headers(),
                    message_id=f"copy-{number}",
                )
            )
        await client.post("/greetings", json={"merchant": "bob"})
        await eventually(lambda: any(entry.startswith("greeted bob") for entry in diary.entries))
        async with app.database.transaction() as session:
            told = await session.scalar(
                text("SELECT count(*) FROM outbox WHERE subject = 'evt.merchant.greeted'")
            )
    assert diary.entries.count("greet ada") == 1
    assert told == 2


async def test_a_message_that_cannot_be_handled_is_kept_whole_and_leaves_no_effect(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    diary = Diary()
    async with running(hello_service(diary), database_settings, nats_settings) as (app, client):
        await client.post("/greetings", json={"merchant": "rude"})
        await app.bus.publisher.publish(
            OutgoingMessage(GREET.subject, b"{not json", {}, message_id="broken")
        )
        letters = DeadLetters(app.bus)
        async with asyncio.timeout(120):
            while len(kept := await letters.list()) < 2:
                await asyncio.sleep(0.02)
        async with app.database.transaction() as session:
            handled = await session.scalar(text("SELECT count(*) FROM inbox"))
    assert b"{not json" in {letter.body for letter in kept}
    assert handled == 0
    assert not any(entry.startswith("greeted") for entry in diary.entries)


async def test_readiness_names_each_part_and_turns_503_while_draining(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    async with running(hello_service(Diary()), database_settings, nats_settings) as (app, client):
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        for part in ("database", "message_bus", "outbox", "subscribers", "workers"):
            assert part in ready.text
        await app.drain()
        draining = await client.get("/health/ready")
        assert (draining.status_code, draining.json()["status"]) == (503, "draining")
        assert (await client.get("/health/live")).status_code == 200


async def test_a_start_that_fails_undoes_what_was_started(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    closed: list[str] = []
    service = Service("hello-service")

    @service.provides
    async def first() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            closed.append("first")

    @service.provides
    async def second(number: int) -> AsyncIterator[str]:
        raise ConnectionError(f"cannot reach number {number}")
        yield ""

    application = service.assemble(ServiceSettings(database=database_settings, nats=nats_settings))
    with pytest.raises(ConnectionError, match="cannot reach number 1"):
        async with application:
            pass
    assert closed == ["first"]
    assert not application.bus.connected


async def test_a_handler_that_needs_what_nobody_provides_stops_the_start(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    service = Service("hello-service")

    @service.handles(GREET)
    async def greet(greeting: Greeting, diary: Diary) -> None: ...

    application = service.assemble(ServiceSettings(database=database_settings, nats=nats_settings))
    with pytest.raises(DeclarationError, match="handler greet needs Diary"):
        async with application:
            pass


async def test_a_service_without_a_database_says_so_where_one_is_needed(
    nats_settings: NatsSettings,
) -> None:
    service = Service("hello-service")

    @service.handles(GREET)
    async def greet(greeting: Greeting, uow: UnitOfWork) -> None: ...

    without: Any = DatabaseSettings(enabled=False)
    application = service.assemble(ServiceSettings(database=without, nats=nats_settings))
    with pytest.raises(DeclarationError, match=r"database\.enabled is false"):
        async with application:
            pass
