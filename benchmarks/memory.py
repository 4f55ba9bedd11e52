"""How much memory a service holds: idle, and while messages go through it.

What is told is the resident set of the process. The service is credit-service, with database,
outbox, relay and its handlers; bare FastAPI has none of it, and stands for what Python and the web
stack take alone. The messages are orders of one merchant whose account has no end of credits: each
is a transaction with an inbox row. `GLAM_MESSAGES` says how many, 4,000 unless it is set; flat is
what matters, the last line against the one before it.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import psutil

from benchmarks.harness import Sizes
from benchmarks.start import bare_service, credit_service
from shared.config import NatsSettings
from shared.context import new_event_id
from shared.dev import NatsServer, PostgresServer
from shared.events import Envelope
from shared.events.credit import ORDER_UPDATED, OrderLine, OrderUpdatedPayload
from shared.messaging import Bus, OutgoingMessage

if TYPE_CHECKING:
    from benchmarks.harness import Bench
    from shared.dev import ServiceProcess

_MESSAGES = 4_000
_SMOKE_MESSAGES = 40
_AT_ONCE = 500
_POLL_SECONDS = 0.05
_MEGABYTE = 1_000_000


async def memory(bench: Bench) -> None:
    """Measure an idle service, and one that works."""
    total = _SMOKE_MESSAGES if bench.smoke else int(os.environ.get("GLAM_MESSAGES", _MESSAGES))
    with tempfile.TemporaryDirectory(prefix="glam-memory-") as name:
        folder = Path(name)
        async with NatsServer() as nats, PostgresServer() as postgres:
            service, bare = credit_service(nats, postgres, folder), bare_service(folder)
            idle: dict[str, list[float]] = {"shared: credit-service": [], "bare FastAPI": []}
            for _ in range(bench.repetitions):
                for held, process in zip(idle.values(), (service(), bare()), strict=True):
                    async with process:
                        held.append(_resident(process))
            bench.keep(Sizes("memory: idle, ready", idle))
            async with (
                service() as process,
                Bus(NatsSettings(servers=(nats.url,)), name="benchmarks") as bus,
            ):
                parts = 4
                working = {"at first": [_resident(process)]}
                for part in range(1, parts + 1):
                    await _send(bus, total // parts)
                    await _handled(bus)
                    share = f"after {part * total // parts:,} messages"
                    working[share] = [_resident(process)]
                bench.keep(Sizes(f"memory: {total:,} orders", working))


def _resident(process: ServiceProcess) -> float:
    return psutil.Process(process.pid).memory_info().rss / _MEGABYTE


async def _send(bus: Bus, count: int) -> None:
    for begun in range(0, count, _AT_ONCE):
        messages = [_message() for _ in range(min(_AT_ONCE, count - begun))]
        for outcome in await bus.publisher.publish_all(messages):
            if isinstance(outcome, Exception):
                raise outcome


async def _handled(bus: Bus) -> None:
    """Return when no consumer of the stream has anything left."""
    stream = ORDER_UPDATED.stream.value
    while any(  # noqa: ASYNC110 - the server tells nobody
        consumer.num_pending or consumer.num_ack_pending
        for consumer in await bus.js.consumers_info(stream)
    ):
        await asyncio.sleep(_POLL_SECONDS)


def _message() -> OutgoingMessage:
    order = OrderUpdatedPayload(
        merchant_id=UUID("0190a5f0-7c4e-7b5a-9d43-2f1f6d0f2a11"),
        merchant_domain="ada.example.com",
        order_id=new_event_id(),
        order_name="#1042",
        currency="EUR",
        updated_at=datetime.now(UTC),
        lines=[
            OrderLine(line_id=new_event_id(), title="Lamp", sku="L", quantity=1, price=Decimal(9))
        ],
    )
    envelope = Envelope.create(ORDER_UPDATED, order, source_service="webhook-service")
    return OutgoingMessage(
        envelope.subject, envelope.encode(), envelope.headers(), envelope.message_id
    )
