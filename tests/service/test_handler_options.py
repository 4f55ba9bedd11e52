"""Handlers with order, batches and confirmed acknowledgements, in a running service."""

import asyncio
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel
from sqlalchemy import text

from shared.config import DatabaseSettings, NatsSettings, ServiceSettings
from shared.delivery import UnitOfWork
from shared.errors import ConflictError, ValidationError
from shared.events import CONVENTION, Contract, Envelope
from shared.messaging import BatchPolicy, DeadLetters, Delivery, OutgoingMessage, RetryPolicy
from shared.service import Application, DeclarationError, Service
from shared.testing import eventually

from .test_application import running

QUICK = RetryPolicy(attempts=3, first_delay_seconds=0.01, max_delay_seconds=0.05)


class Owner(BaseModel):
    id: str


class Step(BaseModel):
    merchant_id: str | None
    number: int
    owner: Owner = Owner(id="nobody")


STEP = Contract("evt.merchant.step", Step)
STREAMS = [CONVENTION.of(STEP)]


def step_message(merchant: str | None, number: int) -> OutgoingMessage:
    envelope = Envelope.create(STEP, Step(merchant_id=merchant, number=number), source_service="t")
    return OutgoingMessage(STEP.subject, envelope.encode(), envelope.headers(), envelope.message_id)


async def test_a_new_handler_with_retry_order_and_dead_letters_is_a_few_lines(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    done: list[tuple[str | None, int]] = []
    failed = 0

    service = Service("credit-service", streams=STREAMS)

    @service.handles(STEP, order_by="merchant_id", retry=QUICK)
    async def take_step(step: Step, uow: UnitOfWork) -> None:
        await take(step, uow)

    async def take(step: Step, uow: UnitOfWork) -> None:
        nonlocal failed
        if step.number == 3 and failed < 2:
            failed += 1
            raise ConflictError("not yet")
        if step.number == 5:
            raise ValidationError("never")
        await uow.session.execute(text("SELECT 1"))
        done.append((step.merchant_id, step.number))

    async with running(service, database_settings, nats_settings) as (application, _):
        messages = [step_message(m, n) for n in range(8) for m in ("ada", "bob")]
        await application.bus.publisher.publish_all(messages)
        await eventually(lambda: len(done) == 14)
        letters = await DeadLetters(application.bus).list()
    expected = [0, 1, 2, 3, 4, 6, 7]
    assert [n for m, n in done if m == "ada"] == expected
    assert [n for m, n in done if m == "bob"] == expected
    assert [letter.reason for letter in letters] == ["no attempt can help"] * 2


async def test_a_large_body_goes_through_the_outbox_and_keeps_its_order(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    done: list[int] = []
    padding = "x" * 2_000_000  # more than the server takes in a message
    service = Service("credit-service", publishes=[STEP])

    @service.handles(STEP, order_by="merchant_id", concurrency=8)
    async def take_step(step: Step, uow: UnitOfWork) -> None:
        if step.number % 3 == 0:
            await asyncio.sleep(0.05)
            assert step.owner.id == padding
        await uow.session.execute(text("SELECT 1"))
        done.append(step.number)

    settings = nats_settings.model_copy(update={"claim_check_bytes": 100_000})
    async with running(service, database_settings, settings) as (application, _):
        async with application.unit_of_work() as uow:
            for number in range(10):
                owner = Owner(id=padding if number % 3 == 0 else "nobody")
                step = Step(merchant_id="ada", number=number, owner=owner)
                uow.outbox.add(STEP, step, key="ada")
        await eventually(lambda: len(done) == 10)
    assert done == list(range(10))


@pytest.mark.parametrize(
    ("order_by", "keys"),
    [
        ("merchant_id", ["ada", None]),
        ("owner.id", ["nobody", "nobody"]),
        (lambda step: step.number % 2, ["1", "0"]),
        (lambda step: None, [None, None]),
    ],
)
def test_the_key_is_a_field_or_a_function_of_the_payload(
    order_by: str, keys: list[str | None]
) -> None:
    service = Service("hello-service")

    @service.handles(STEP, order_by=order_by)
    async def step(step: Step) -> None: ...

    (handler,) = service.handlers
    deliveries = [_delivery(step_message("ada", 1)), _delivery(step_message(None, 2))]
    assert [handler.key_of(delivery) for delivery in deliveries] == keys


def test_a_body_that_is_no_envelope_has_no_key() -> None:
    service = Service("hello-service")

    @service.handles(STEP, order_by="merchant_id")
    async def step(step: Step) -> None: ...

    assert service.handlers[0].key_of(_delivery(OutgoingMessage("evt.x.y", b"{", {}, "x"))) is None


def test_a_key_that_is_no_field_is_refused() -> None:
    service = Service("hello-service")
    with pytest.raises(DeclarationError, match="order_by='merchant' is not a field of Step"):

        @service.handles(STEP, order_by="merchant")
        async def step(step: Step) -> None: ...


def test_options_that_do_not_fit_the_handler_are_refused() -> None:
    service = Service("hello-service")
    with pytest.raises(DeclarationError, match=r"annotate list\[Step\], not Step"):

        @service.handles(STEP, batch=BatchPolicy())
        async def single(step: Step) -> None: ...

    with pytest.raises(DeclarationError, match=r"declare it with batch=BatchPolicy"):

        @service.handles(STEP)
        async def listed(steps: list[Step]) -> None: ...

    with pytest.raises(DeclarationError, match="exclude each other"):

        @service.handles(STEP, batch=BatchPolicy(), order_by="merchant_id")
        async def both(steps: list[Step]) -> None: ...


async def test_a_batch_is_one_transaction_and_leaves_out_what_was_handled(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    batches: list[list[int]] = []
    service = Service("hello-service", streams=STREAMS)

    @service.handles(
        STEP, name="steps", batch=BatchPolicy(size=10, wait_seconds=0.2), concurrency=1, retry=QUICK
    )
    async def steps(steps: list[Step], envelopes: list[Envelope], uow: UnitOfWork) -> None:
        assert [e.payload["number"] for e in envelopes] == [s.number for s in steps]
        await uow.session.execute(text("SELECT 1"))
        batches.append([step.number for step in steps])
        if len(steps) > 1 and any(step.number == 4 for step in steps):
            raise ConflictError("one of them")

    async with running(service, database_settings, nats_settings) as (application, _):
        first = step_message("ada", 1)
        publisher = application.bus.publisher
        await publisher.publish(first)
        await eventually(lambda: batches == [[1]])
        again = OutgoingMessage(first.subject, first.body, first.headers, "a second time")
        await publisher.publish_all([again, step_message("ada", 2), step_message("ada", 3)])
        await eventually(lambda: len(batches) == 2)
        assert batches[1] == [2, 3]
        await publisher.publish_all([step_message("ada", n) for n in (4, 5)])
        # Together they fail and are rolled back, inbox and all; one by one they succeed.
        await eventually(lambda: batches[2:] == [[4, 5], [4], [5]])
        async with application.database.transaction() as session:
            rows = await session.scalar(text("SELECT count(*) FROM hello.inbox"))
        assert rows == 5


async def test_subscribers_are_shown_paused_and_resumed_over_http(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    seen: list[int] = []
    service = Service("hello-service", streams=STREAMS)

    @service.handles(STEP, double_ack=True)
    async def step(step: Step) -> None:
        seen.append(step.number)

    async with running(service, database_settings, nats_settings) as (application, client):
        durable = "hello-service-step"
        answer = await client.post(f"/subscribers/{durable}/pause")
        assert answer.json()["data"]["paused"] is True

        async def state() -> str:
            (shown,) = (await client.get("/subscribers")).json()["data"]
            return str(shown["state"])

        async with asyncio.timeout(120):
            while await state() != "paused":
                await asyncio.sleep(0.02)
        await application.bus.publisher.publish(step_message("ada", 1))
        ready = (await client.get("/health/ready")).json()
        assert "paused" in str(ready)
        assert seen == []
        await client.post(f"/subscribers/{durable}/resume")
        await eventually(lambda: seen == [1])
        assert (await client.post("/subscribers/nobody/pause")).status_code == 404


async def test_in_prod_nobody_pauses_unless_the_settings_say_so(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    settings = ServiceSettings(environment="prod", database=database_settings, nats=nats_settings)
    app = Application(Service("hello-service", streams=STREAMS), settings).app
    assert "/api/v1/subscribers" not in app.openapi()["paths"]


def _delivery(message: OutgoingMessage) -> Delivery:
    return Delivery(message.subject, message.body, message.headers, "S", 1, 1, datetime.now(UTC))
