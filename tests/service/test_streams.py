"""A service of a domain of its own, and subjects and formats of others, on real servers."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Literal

import pytest
from nats.js.api import StreamConfig
from pydantic import BaseModel
from sqlalchemy import text

from shared.config import ServiceSettings
from shared.delivery import UnitOfWork  # noqa: TC001 - handlers' annotations are read
from shared.doctor import Severity, examine
from shared.errors import MessageBusError, ValidationError
from shared.events import CONVENTION, JSON, Contract, Envelope, StreamDefinition, StreamTable
from shared.messaging import (
    Bus,
    DeadLetterEdit,
    DeadLetters,
    Delivery,
    OutgoingMessage,
    RetryPolicy,
)
from shared.service import DeclarationError, Service
from shared.testing import eventually

from .test_application import running

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.config import DatabaseSettings, NatsSettings
    from shared.service import Application


class Paid(BaseModel):
    number: int


class Order(BaseModel):
    order: int
    merchant_id: str | None = None


PAID = Contract("evt.invoice.paid", Paid)
ORDERS = Contract("orders.*.created", Order, stream="ORDERS", durable="projection", codec=JSON)
CANCELLED = Contract("orders.eu.cancelled", Order, stream="ORDERS", codec=JSON)
QUICK = RetryPolicy(attempts=2, first_delay_seconds=0.02, max_delay_seconds=0.05)
LATER = RetryPolicy(first_delay_seconds=1, long_wait_seconds=1, jitter=0)


def settings(database: DatabaseSettings, nats: NatsSettings) -> ServiceSettings:
    return ServiceSettings(database=database, nats=nats)


def listener(seen: list[int]) -> Service[ServiceSettings]:
    service = Service("listener-service")

    @service.handles(PAID)
    async def listen(paid: Paid) -> None:
        seen.append(paid.number)

    return service


async def test_a_reader_waits_for_the_stream_of_another_domain_and_says_so(
    database_settings: DatabaseSettings,
    nats_settings: NatsSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen: list[int] = []
    service = listener(seen)
    shared = nats_settings.model_validate(  # a limit for all services makes none of them the owner
        {**nats_settings.model_dump(), "streams": {"INVOICE": {"max_messages": 9}}}
    )
    with caplog.at_level(logging.WARNING):
        async with running(service, database_settings, shared) as (app, client):
            assert "stream INVOICE is not there yet; listener-service waits" in caplog.text
            state = (await client.get("/subscribers")).json()["data"][0]
            assert (state["stream"], state["state"]) == ("INVOICE", "waiting")
            await eventually(
                lambda: "is not there yet" in (app._subscribers[0].status.last_error or "")
            )
            ready = (await client.get("/health/ready")).json()
            told = ready["checks"]["subscribers"]["detail"]["listener-service-listen"]
            assert "stream INVOICE is not there yet" in told["last_error"]
            found = await examine([service], settings={service.name: app.settings})
            assert "stream-missing" in {each.code for each in found}

            invoices = Service("invoice-service", publishes=[PAID], schema="invoice")
            async with running(invoices, database_settings, shared) as (owner, _):
                assert (await owner.bus.js.stream_info("INVOICE")).config.max_msgs == 9
                async with owner.unit_of_work() as uow:
                    uow.outbox.add(PAID, Paid(number=7))
                await eventually(lambda: seen == [7])


async def test_the_convention_needs_no_line_and_a_definition_none_but_its_own(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    books = StreamDefinition(
        "BOOKS", ("evt.invoice.>",), max_age_seconds=3600, max_messages=10, storage="memory"
    )
    with_settings = nats_settings.model_validate(
        {**nats_settings.model_dump(), "streams": {"BOOKS": {"max_bytes": 1_000_000}}}
    )
    for streams, name in (((), "INVOICE"), ([books], "BOOKS")):
        service = Service("invoice-service", publishes=[PAID], streams=streams)
        nats = with_settings if streams else nats_settings
        async with running(service, database_settings, nats) as (app, _):
            config = (await app.bus.js.stream_info(name)).config
            await app.bus.js.delete_stream(name)
    assert (config.max_age, config.max_msgs, config.max_bytes) == (3600, 10, 1_000_000)
    assert str(config.storage) == "memory"


async def test_a_stream_of_another_name_that_holds_the_subject_is_named(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    owner = Service("invoice-service", publishes=[PAID])
    async with Bus(nats_settings, name="tests") as bus:
        await bus.js.add_stream(StreamConfig(name="LEDGER", subjects=["evt.invoice.*"]))
    for service in (owner, listener([])):
        with pytest.raises(MessageBusError) as caught:
            async with service.assemble(settings(database_settings, nats_settings)):
                pass
        assert not caught.value.retryable
        told = str(caught.value)
        assert "stream LEDGER on the server takes 'evt.invoice.*'" in told
        assert "stream='LEDGER'" in told
        assert "evt.invoice" in told.partition("cannot take")[2]


async def test_a_stream_that_cannot_be_widened_names_who_has_the_subject(
    nats_settings: NatsSettings,
) -> None:
    async with Bus(nats_settings, name="tests") as bus:
        await bus.js.add_stream(StreamConfig(name="INVOICE", subjects=["evt.invoice.>"]))
        await bus.js.add_stream(StreamConfig(name="LEDGER", subjects=["cmd.invoice.pay"]))
        with pytest.raises(MessageBusError, match=r"stream LEDGER .* takes 'cmd\.invoice\.pay'"):
            await bus.ensure_stream(CONVENTION.of(PAID))


async def test_an_external_stream_that_does_not_take_the_subject_is_told(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    service = Service("view-service", publishes=[CANCELLED])
    async with Bus(nats_settings, name="tests") as bus:
        await bus.js.add_stream(StreamConfig(name="ORDERS", subjects=["orders.us.>"]))
    with pytest.raises(MessageBusError, match=r"ORDERS is on the server and does not take"):
        async with service.assemble(settings(database_settings, nats_settings)):
            pass


def test_streams_that_contradict_each_other_are_refused_when_they_are_declared() -> None:
    books = StreamDefinition("BOOKS", ("evt.invoice.>",))
    money = StreamDefinition("MONEY", ("evt.*.paid",))
    with pytest.raises(DeclarationError, match="BOOKS and MONEY overlap"):
        Service("invoice-service", streams=[books, money])
    with pytest.raises(DeclarationError, match="BOOKS and MONEY overlap"):
        Service(
            "invoice-service",
            publishes=[Contract("evt.invoice.paid", Paid, stream=money)],
            streams=StreamTable([books]),
        )
    service = Service("invoice-service", streams=[books])
    with pytest.raises(DeclarationError, match="BOOKS and MONEY overlap"):
        service.handles(Contract("evt.invoice.paid", Paid, stream=money))(handle)
    with pytest.raises(DeclarationError, match="cannot publish orders"):
        Service("view-service", publishes=[ORDERS])


async def handle(paid: Paid) -> None: ...


def test_a_contract_without_a_stream_stops_the_service_before_it_connects() -> None:
    service = Service("view-service", publishes=[Contract("orders.created", Order)])
    with pytest.raises(DeclarationError, match=r"no stream holds 'orders\.created'"):
        service.assemble(ServiceSettings())
    attempts = Service("attempts-service", publishes=[Contract("evt.attempts.made", Paid)])
    with pytest.raises(DeclarationError, match="ATTEMPTS is the chassis' own"):
        attempts.assemble(ServiceSettings())


def test_plain_json_has_no_envelope_to_ask_for() -> None:
    service = Service("view-service")

    async def view(order: Order, envelope: Envelope) -> None: ...

    with pytest.raises(DeclarationError, match="come without an envelope; take a Delivery"):
        service.handles(ORDERS)(view)


async def handled(app: Application[ServiceSettings], event_ids: set[str]) -> None:
    """Wait until the inbox knows these, and no others."""
    async with asyncio.timeout(120):
        while True:
            async with app.database.transaction() as session:
                known = set(await session.scalars(text("SELECT message_id FROM inbox")))
            if known == event_ids:
                return
            await asyncio.sleep(0.02)


def view_service(seen: list[Order], fails: Callable[[], bool]) -> Service[ServiceSettings]:
    service = Service("view-service", publishes=[CANCELLED])

    @service.handles(ORDERS, retry=QUICK)
    async def view(order: Order, uow: UnitOfWork, delivery: Delivery) -> None:
        await uow.session.execute(text("SELECT 1"))
        if fails():
            raise ValidationError("not yet")
        seen.append(order)
        if order.order == 2:
            uow.outbox.add(CANCELLED, order)

    return service


async def test_others_subjects_in_plain_json_are_handled_published_and_listed(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    seen: list[Order] = []
    failing = False
    service = view_service(seen, lambda: failing)
    async with Bus(nats_settings, name="shop") as shop:
        await shop.js.add_stream(
            StreamConfig(name="ORDERS", subjects=["orders.>"], allow_rollup_hdrs=True)
        )
        before = (await shop.js.stream_info("ORDERS")).config
        async with running(service, database_settings, nats_settings) as (app, client):
            await shop.js.publish("orders.eu.created", b'{"order": 1, "merchant_id": "ada"}')
            await shop.publisher.publish(
                OutgoingMessage("orders.us.created", b'{"order": 2}', {}, "wire-1")
            )
            await eventually(lambda: len(seen) == 2)
            assert {order.order: order.merchant_id for order in seen} == {1: "ada", 2: None}
            await handled(app, {"ORDERS:1", "wire-1"})
            (state,) = (await client.get("/subscribers")).json()["data"]
            assert (state["durable"], state["subject"]) == ("projection", "orders.*.created")
            assert "projection" in (await client.get("/health/ready")).text

            async def cancelled() -> bytes | None:
                info = (await shop.js.stream_info("ORDERS")).state
                last = await shop.js.get_msg("ORDERS", info.last_seq)
                return last.data if last.subject == CANCELLED.subject else None

            async with asyncio.timeout(120):
                while not (body := await cancelled()):
                    await asyncio.sleep(0.02)
            assert Order.model_validate_json(body) == Order(order=2)
            found = await examine([service], settings={service.name: app.settings})
            errors = [each for each in found if each.severity is Severity.ERROR]
            assert [each for each in errors if "projection" in each.about] == []
            assert "stream ORDERS" in {each.about for each in found}
        after = (await shop.js.stream_info("ORDERS")).config
        assert after == before  # somebody else's: nothing of it was changed


async def test_a_dead_letter_in_plain_json_keeps_its_event_id_when_it_is_replayed(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    seen: list[Order] = []
    failing = True
    service = view_service(seen, lambda: failing)
    async with Bus(nats_settings, name="shop") as shop:
        await shop.js.add_stream(StreamConfig(name="ORDERS", subjects=["orders.>"]))
        async with running(service, database_settings, nats_settings) as (app, _):
            await shop.js.publish("orders.eu.created", b'{"order": 1}')
            letters = app.provisions.get(DeadLetters)
            async with asyncio.timeout(120):
                while not (listed := await letters.list()):
                    await asyncio.sleep(0.02)
            failing = False
            with pytest.raises(ValidationError, match="does not fit the contract"):
                await letters.replay(
                    listed[0].sequence, edit=DeadLetterEdit(values={"order": "many"})
                )
            await letters.replay(listed[0].sequence, edit=DeadLetterEdit(values={"order": 5}))
            await eventually(lambda: seen == [Order(order=5)])
            await handled(app, {"ORDERS:1"})


async def test_a_message_in_plain_json_that_was_put_off_keeps_its_event_id(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    seen: list[Delivery] = []
    service = Service("view-service")

    @service.handles(
        ORDERS, retry=RetryPolicy(first_delay_seconds=1, long_wait_seconds=1, jitter=0)
    )
    async def view(order: Order, uow: UnitOfWork, delivery: Delivery) -> None:
        await uow.session.execute(text("SELECT 1"))
        seen.append(delivery)
        if len(seen) == 1:
            raise ConnectionError("not yet")

    async with Bus(nats_settings, name="shop") as shop:
        await shop.js.add_stream(
            StreamConfig(
                name="ORDERS",
                subjects=["orders.>"],
                allow_msg_schedules=True,
                allow_msg_ttl=True,
                allow_rollup_hdrs=True,
            )
        )
        async with running(service, database_settings, nats_settings) as (app, _):
            await shop.js.publish("orders.eu.created", b'{"order": 1}')
            await handled(app, {"ORDERS:1"})
    assert [delivery.sequence == 1 for delivery in seen] == [True, False]


@pytest.mark.parametrize("retention", ["interest", "workqueue"])
async def test_what_is_published_to_a_stream_of_another_retention_is_handled(
    database_settings: DatabaseSettings,
    nats_settings: NatsSettings,
    retention: Literal["interest", "workqueue"],
) -> None:
    seen: list[int] = []
    jobs = StreamDefinition("JOBS", ("cmd.invoice.>", "evt.invoice.>"), retention=retention)
    service = Service("invoice-service", publishes=[PAID], streams=[jobs])

    @service.handles(PAID)
    async def paid(paid: Paid) -> None:
        seen.append(paid.number)

    async with running(service, database_settings, nats_settings) as (app, _):
        await eventually(lambda: app._subscribers[0].status.state == "running")
        for number in range(3):
            async with app.unit_of_work() as uow:
                uow.outbox.add(PAID, Paid(number=number), key="a")
        await eventually(lambda: seen == [0, 1, 2])


async def test_a_service_may_own_a_stream_of_any_subjects(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    seen: list[int] = []
    parcels = Contract("parcels.sent", Order)
    service = Service(
        "parcel-service",
        publishes=[parcels],
        streams=[StreamDefinition("PARCELS", ("parcels.>",))],
    )

    @service.handles(parcels)
    async def sent(order: Order, envelope: Envelope) -> None:
        seen.append(order.order)

    async with running(service, database_settings, nats_settings) as (app, _):
        async with app.unit_of_work() as uow:
            for number in range(3):
                uow.outbox.add(parcels, Order(order=number), key="a")
        await eventually(lambda: seen == [0, 1, 2])
    assert CONVENTION.of(PAID).name == "INVOICE"
