"""The first user of the types: never run; checked by mypy and basedpyright, both strict."""

from collections.abc import AsyncIterator
from typing import assert_type

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from shared.config import DatabaseSettings, ServiceSettings, load_settings
from shared.context import Context, TraceContext, current
from shared.database import Base, Repository
from shared.delivery import UnitOfWork
from shared.dev import Mail, NatsServer, PostgresServer, SmtpSink
from shared.errors import ConflictError, Outcome, outcome_of
from shared.events import JSON, Contract, Envelope, StreamDefinition, StreamTable
from shared.messaging import RetryPolicy
from shared.service import Service, UnitOfWorkDep


class Greeting(BaseModel):
    merchant: str


class Recording(BaseModel):
    """The payload of no contract."""


class GreetingSettings(ServiceSettings):
    politeness: int = 1


class GreetingRow(Base):
    __tablename__ = "greetings"

    merchant: Mapped[str] = mapped_column(primary_key=True)


class Voice:
    def say(self, words: str) -> None: ...


GREET = Contract("cmd.merchant.greet", Greeting)
GREETED = Contract("evt.merchant.greeted", Greeting, version=2)
THEIRS = Contract("greetings.*.sent", Greeting, stream="GREETINGS", durable="hello", codec=JSON)
STREAMS = StreamTable([StreamDefinition("MERCHANT", ("evt.merchant.>", "cmd.merchant.>"))])
service = Service(
    "hello-service", settings=GreetingSettings, publishes=[GREET, GREETED], streams=STREAMS
)


@service.provides
async def voice(settings: GreetingSettings) -> AsyncIterator[Voice]:
    assert_type(settings.politeness, int)
    yield Voice()


@service.router.post("/greetings")
async def ask(greeting: Greeting, uow: UnitOfWorkDep) -> Greeting:
    assert_type(uow, UnitOfWork)
    assert_type(uow.outbox.add(GREET, greeting, key=greeting.merchant), Envelope)
    return greeting


@service.handles(GREET, retry=RetryPolicy(attempts=3), concurrency=4)
async def greet(greeting: Greeting, uow: UnitOfWork, context: Context, voice: Voice) -> None:
    assert_type(uow.session, AsyncSession)
    assert_type(uow.repository(GreetingRow), Repository[GreetingRow])
    assert_type(context.trace, TraceContext)
    voice.say(greeting.merchant)


@service.handles(THEIRS)
async def repeat(greeting: Greeting) -> None:
    assert_type(THEIRS.write(greeting), bytes)
    assert_type(STREAMS.of(THEIRS), StreamDefinition)
    Envelope.create(GREET, Recording(), source_service="x")  # type: ignore[misc] # pyright: ignore[reportArgumentType]


def read(body: bytes) -> Greeting:
    greeting = GREET.read(Envelope.decode(body))
    assert_type(greeting, Greeting)
    return greeting


def settings() -> None:
    assert_type(load_settings(GreetingSettings, "hello-service"), GreetingSettings)
    assert_type(current(), Context | None)
    assert_type(outcome_of(ConflictError("taken")), Outcome)


async def servers() -> None:
    async with NatsServer() as nats, PostgresServer() as postgres, SmtpSink() as mail:
        assert_type(nats.url, str)
        assert_type(postgres.settings, DatabaseSettings)
        assert_type(await postgres.create_database("greetings"), DatabaseSettings)
        assert_type(mail.messages, tuple[Mail, ...])
