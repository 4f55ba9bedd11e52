"""How much memory a service holds: idle, and while messages go through it.

What is told is the resident set of the process. The idle service is credit-service, with database,
outbox, relay and its handlers; bare FastAPI has none of it, and stands for what Python and the web
stack take alone. Then flat is what matters, the end of a curve against its middle:

- Orders of one merchant whose account has no end of credits, handled by credit-service: each is a
  transaction with an inbox row. `GLAM_ORDERS` says how many, 4,000 unless it is set.
- Messages to a typed handler that does nothing, of a service without a database: context, span,
  metrics and all. `GLAM_MESSAGES` says how many, 20,000 unless it is set; a million take some
  minutes. They are one order over and over, under ids of their own. What the service writes to its
  log is thrown away.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import psutil

from benchmarks.harness import Growth, Sizes
from benchmarks.start import bare_service, credit_service
from shared.config import NatsSettings
from shared.context import new_event_id
from shared.dev import NatsServer, PostgresServer, ServiceProcess
from shared.dev.server import free_port
from shared.events import CONVENTION, Envelope
from shared.events.credit import ORDER_UPDATED, OrderLine, OrderUpdatedPayload
from shared.messaging import Bus, OutgoingMessage

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Bench

_ORDERS = 4_000
_MESSAGES = 20_000
_SMOKE_MESSAGES = 40
_AT_ONCE = 500
_WAITING = 50_000  # so many messages wait in the stream at most
_POLL_SECONDS = 0.05
_MEGABYTE = 1_000_000
_STREAM = CONVENTION.of(ORDER_UPDATED).name


async def memory(bench: Bench) -> None:
    """Measure an idle service, and two that work."""
    orders = _wanted(bench, "GLAM_ORDERS", _ORDERS)
    messages = _wanted(bench, "GLAM_MESSAGES", _MESSAGES)
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
            places = [part * orders // 4 for part in range(5)]
            held = await _grown(nats, service(), places, _order)
            bench.keep(Growth("memory: orders, with a transaction each", "orders", places, held))
        async with NatsServer() as nats:
            places = [0, *sorted({messages // share for share in (100, 10, 4, 2, 1)} - {0})]
            held = await _grown(nats, _reader_service(nats), places, _again(_order()))
            bench.keep(Growth("memory: messages to a typed handler", "messages", places, held))


def _wanted(bench: Bench, variable: str, count: int) -> int:
    return _SMOKE_MESSAGES if bench.smoke else int(os.environ.get(variable, count))


def _reader_service(nats: NatsServer) -> ServiceProcess:
    port = free_port()
    return ServiceProcess(
        [sys.executable, "-m", "shared.cli", "run", "benchmarks.reader"],
        env={
            "READER_API__HOST": "127.0.0.1",
            "READER_API__PORT": str(port),
            "READER_DATABASE__ENABLED": "false",
            "READER_NATS__SERVERS": nats.url,
        },
        log_file=Path(os.devnull),
        ready_url=f"http://127.0.0.1:{port}/api/v1/health/ready",
    )


async def _grown(
    nats: NatsServer,
    process: ServiceProcess,
    places: list[int],
    message: Callable[[], OutgoingMessage],
) -> list[float]:
    """Return how much a service holds once it has handled so many messages, for each place."""
    held = []
    sent = 0
    async with process, Bus(NatsSettings(servers=(nats.url,)), name="benchmarks") as bus:
        for place in places:
            while sent < place:
                lot = min(place - sent, _WAITING // 2)
                await _send(bus, lot, message)
                await _handled(bus, but=_WAITING // 2)
                sent += lot
            await _handled(bus)
            held.append(_resident(process))
            if sent:
                await bus.js.purge_stream(_STREAM)
    return held


def _resident(process: ServiceProcess) -> float:
    return psutil.Process(process.pid).memory_info().rss / _MEGABYTE


async def _send(bus: Bus, count: int, message: Callable[[], OutgoingMessage]) -> None:
    for begun in range(0, count, _AT_ONCE):
        messages = [message() for _ in range(min(_AT_ONCE, count - begun))]
        for outcome in await bus.publisher.publish_all(messages):
            if isinstance(outcome, Exception):
                raise outcome


async def _handled(bus: Bus, *, but: int = 0) -> None:
    """Return when no consumer of the stream has more than so many left."""
    while any(  # noqa: ASYNC110 - the server tells nobody
        (consumer.num_pending or 0) + (consumer.num_ack_pending or 0) > but
        for consumer in await bus.js.consumers_info(_STREAM)
    ):
        await asyncio.sleep(_POLL_SECONDS)


def _order() -> OutgoingMessage:
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


def _again(message: OutgoingMessage) -> Callable[[], OutgoingMessage]:
    """Return what makes the same message under another id, again and again."""
    return lambda: replace(message, message_id=new_event_id())
