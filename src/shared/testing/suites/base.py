"""What the suites have in common: waiting, and the parts of a service around a test."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from shared.config import DeliverySettings, LoggingSettings
from shared.database import Database, migrate, tenant_scope
from shared.delivery import UnitOfWork
from shared.events import Envelope
from shared.messaging import OutgoingMessage, RetryPolicy, Subscriber
from shared.testing.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractContextManager
    from uuid import UUID

    from pydantic import BaseModel

    from shared.config import DatabaseSettings, NatsSettings, ServiceSettings
    from shared.events import Contract
    from shared.messaging import Bus, Subscription
    from shared.service import Service

QUICK = RetryPolicy(attempts=3, first_delay_seconds=0.02, max_delay_seconds=0.1)


class Suite:
    """A class of tests, each of which is asynchronous."""

    pytestmark: ClassVar[list[pytest.MarkDecorator]] = [pytest.mark.asyncio]

    timeout_seconds: float = 120.0
    """How long what has to happen may take on the slowest machine."""

    async def eventually(self, condition: Callable[[], Awaitable[object] | object]) -> None:
        """Wait until the condition holds; an error counts as not yet.

        Raises:
            TimeoutError: it never did.
        """
        await eventually(condition, within_seconds=self.timeout_seconds)


class ContractSuite(Suite):
    """A suite about the messages of one contract."""

    contract: Contract[Any]
    """The contract whose messages are sent."""

    def payload(self, number: int) -> BaseModel:
        """Make a payload; another one for each number."""
        raise NotImplementedError(f"{type(self).__name__}.payload(number) says what is sent")

    def message(self, number: int) -> OutgoingMessage:
        """Make the message of a number, as a publisher of the contract would."""
        envelope = Envelope.create(
            self.contract, self.payload(number), source_service="contract-tests"
        )
        return OutgoingMessage(
            envelope.subject, envelope.encode(), envelope.headers(), envelope.message_id
        )


class ServiceSuite(Suite):
    """A suite about a service with a database."""

    service: Service[Any]
    """The service; its migrations make the tables."""

    def settings(self, database: DatabaseSettings, nats: NatsSettings) -> ServiceSettings:
        """Make the service's settings; override it for a service with settings of its own."""
        settings: ServiceSettings = self.service.settings_type(
            database=database,
            nats=nats,
            delivery=DeliverySettings(poll_seconds=0.05),
            logging=LoggingSettings(level="WARNING"),
            drain_seconds=5,
        )
        return settings

    async def prepare(self, database: Database) -> None:
        """Make what a test needs in the database beside the tables; by default nothing."""

    def tenant_of(self, subject: Any) -> UUID | str | None:
        """Tell whose rows a payload or a row is about, by default its ``merchant_id``.

        Where that is a tenant, the suite works for it (`tenant_scope`) while it asks.
        """
        tenant: UUID | str | None = getattr(subject, "merchant_id", None)
        return tenant

    def scope(self, subject: Any) -> AbstractContextManager[object]:
        """Work for the tenant of a payload or a row, if it has one, until the block ends."""
        tenant = self.tenant_of(subject)
        return nullcontext() if tenant is None else tenant_scope(tenant)

    @asynccontextmanager
    async def database(self, settings: DatabaseSettings) -> AsyncIterator[Database]:
        """Open the service's database, migrated and prepared."""
        schema = settings.schema_name or self.service.schema
        async with Database(settings, schema=schema) as database:
            await migrate(database, migrations=self.service.migrations)
            await self.prepare(database)
            yield database

    def unit_of_work(self, database: Database) -> UnitOfWork:
        """Make a unit of work of the service."""
        return UnitOfWork(
            database, service=self.service.name, publishes=self.service.publishes or None
        )


@asynccontextmanager
async def subscribed(bus: Bus, subscription: Subscription) -> AsyncIterator[Subscriber]:
    """Run a subscriber within the block."""
    subscriber = Subscriber(bus, subscription, service="contract-tests")
    running = asyncio.create_task(subscriber.run())
    try:
        yield subscriber
    finally:
        await subscriber.drain(1)
        await running
