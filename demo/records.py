"""What really happened, read from the database, the bus and the mailbox, past the services."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import asyncpg

from services.credit.service import service as credit_service
from services.notification.service import service as notification_service
from shared.config import NatsSettings
from shared.context import new_event_id
from shared.events import Envelope
from shared.events.credit import ORDER_UPDATED
from shared.messaging import Bus, DeadLetters, OutgoingMessage

if TYPE_CHECKING:
    from types import TracebackType
    from uuid import UUID

    from demo.deployment import Deployment
    from shared.messaging import DeadLetter
    from shared.service import Service

__all__ = ["Account", "Entry", "Frozen", "Kept", "Records"]


class Entry(NamedTuple):
    """A line of the ledger."""

    merchant_id: UUID
    position: int
    kind: str
    reference: str
    amount: int
    balance: int


class Account(NamedTuple):
    """An account."""

    merchant_id: UUID
    balance: int


class Kept(NamedTuple):
    """A webhook as the webhook service kept it."""

    webhook_id: str
    status: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Frozen:
    """What the credit service was doing when it was frozen.

    Attributes:
        debits: order lines debited by then.
        transactions: of the service, open, with something written.
        unacknowledged: order events it had been given and not acknowledged.
        waiting: order events the stream had for it.
    """

    debits: int
    transactions: int
    unacknowledged: int
    waiting: int


class Records:
    """Reads along. Made by ``open``; for one task at a time."""

    def __init__(self, database: asyncpg.Connection[asyncpg.Record], bus: Bus) -> None:
        self._database = database
        self._bus = bus

    @classmethod
    async def open(cls, deployment: Deployment) -> Self:
        """Connect.

        Raises:
            OSError, shared.errors.MessageBusError: a server does not answer.
        """
        bus = Bus(NatsSettings(servers=(deployment.nats.url,)), name="demo")
        await bus.__aenter__()
        try:
            return cls(await asyncpg.connect(deployment.postgres.url), bus)
        except BaseException:
            await bus.close()
            raise

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._database.terminate()
        await self._bus.close()

    async def debits(self) -> int:
        """Count the order lines that are debited."""
        count: int = await self._database.fetchval(
            "SELECT count(*) FROM credit.ledger_entries WHERE kind = 'debit'"
        )
        return count

    async def ledger(self) -> list[Entry]:
        """Return every ledger entry."""
        rows = await self._database.fetch(
            "SELECT merchant_id, position, kind, reference, amount, balance"
            " FROM credit.ledger_entries ORDER BY merchant_id, position"
        )
        return [Entry(*row) for row in rows]

    async def accounts(self) -> list[Account]:
        """Return every account."""
        rows = await self._database.fetch("SELECT merchant_id, balance FROM credit.accounts")
        return [Account(*row) for row in rows]

    async def kept(self) -> list[Kept]:
        """Return every webhook that was kept."""
        rows = await self._database.fetch(
            "SELECT webhook_id, status, body FROM webhook.webhook_deliveries"
        )
        return [Kept(*row) for row in rows]

    async def dead_letters(self) -> list[DeadLetter]:
        """Return every dead letter."""
        return await DeadLetters(self._bus).list(limit=1000)

    async def poison(self) -> bytes:
        """Publish an order event that no service could ever handle; return its body."""
        event = Envelope.from_dict(
            {
                "event_id": new_event_id(),
                "subject": ORDER_UPDATED.subject,
                "timestamp": datetime.now(UTC),
                "payload": {"order_id": "poison", "lines": "all of them"},
            }
        )
        body = event.encode()
        await self._bus.publisher.publish(
            OutgoingMessage(
                subject=event.subject,
                body=body,
                headers=event.headers(),
                message_id=event.message_id,
            )
        )
        return body

    async def look_at_credit(self) -> Frozen:
        """Look at what the credit service is doing."""
        transactions = await self._database.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'credit-service' AND backend_xid IS NOT NULL"
        )
        stream, durable = next(iter(_consumers(credit_service, ORDER_UPDATED.subject)))
        consumer = await self._bus.js.consumer_info(stream, durable)
        return Frozen(
            debits=await self.debits(),
            transactions=transactions,
            unacknowledged=consumer.num_ack_pending or 0,
            waiting=consumer.num_pending or 0,
        )

    async def settled(self) -> None:
        """Wait until all that was sent has come to its end, from the door to the mailbox."""
        for schema, fed in (("webhook", credit_service), ("credit", notification_service)):
            while await self._unpublished(schema):
                await asyncio.sleep(0.05)
            for stream, durable in _consumers(fed):
                while await self._busy(stream, durable):
                    await asyncio.sleep(0.05)

    async def _unpublished(self, schema: str) -> bool:
        rows = f"SELECT FROM {schema}.outbox WHERE published_at IS NULL"
        return bool(await self._database.fetchval(f"SELECT EXISTS ({rows})"))

    async def _busy(self, stream: str, durable: str) -> bool:
        consumer = await self._bus.js.consumer_info(stream, durable)
        return bool(consumer.num_pending or consumer.num_ack_pending)


def _consumers(service: Service[Any], subject: str | None = None) -> list[tuple[str, str]]:
    return [
        (service.streams.holding(handler.contract.subject).name, handler.durable(service.name))
        for handler in service.handlers
        if subject in (None, handler.contract.subject)
    ]
