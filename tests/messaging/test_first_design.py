"""Services written against the first design, unchanged, on the engine."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID, uuid4

import nats
import pytest
from pydantic import BaseModel

import shared.events
from shared.context import Context, bind, current
from shared.errors import MessageBusError, ValidationError
from shared.events import Envelope, Streams
from shared.messaging import (
    DeadLetters,
    DomainEventPublisher,
    DomainEventSubscriber,
    JetStreamEventPublisher,
    JetStreamEventSubscriber,
    JetStreamWrapper,
    OutgoingMessage,
    RetryPolicy,
    ServiceDependencies,
    State,
)

from .conftest import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.config import NatsSettings


class CreditPublisher(DomainEventPublisher):
    domain_stream = Streams.CREDIT
    service_name_override = "credit-service"


class PlainPublisher(JetStreamEventPublisher):
    stream_name = "NOTIFICATION"
    subjects = ["cmd.notification.*"]  # noqa: RUF012 - as services write it
    service_name = "mailer"

    def __init__(self, client: Any, js: Any, logger: Any = None) -> None:
        super().__init__(client, js, logger)
        self.own = True


class Recorder(JetStreamEventSubscriber):
    stream_name = "CREDIT"
    subject = "evt.credit.>"
    event_type = "evt.credit.>"
    durable_name = "recorder"
    retry: ClassVar[RetryPolicy] = RetryPolicy(attempts=2, first_delay_seconds=0.01)

    async def on_event(self, event: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        seen: list[tuple[dict[str, Any], dict[str, str] | None, Context | None]]
        seen = self.get_dependency("seen")
        seen.append((event, headers, current()))
        if event["payload"].get("fail"):
            raise RuntimeError("failed")

    async def on_error(self, error: Exception, event: dict[str, Any]) -> bool:
        del error
        return bool(event["payload"].get("forgiven"))


Seen = list[tuple[dict[str, Any], dict[str, str] | None, Context | None]]


@pytest.fixture
async def wrapper(nats_settings: NatsSettings) -> AsyncIterator[JetStreamWrapper]:
    wrapper = JetStreamWrapper(logging.getLogger("tests"))
    await wrapper.connect(list(nats_settings.servers))
    yield wrapper
    await wrapper.close()


@pytest.fixture
def seen(wrapper: JetStreamWrapper) -> Seen:
    seen: Seen = []
    wrapper.register_dependency("seen", seen)
    return seen


class Colour(Enum):
    RED = "red"


class Model(BaseModel):
    name: str


async def test_an_event_goes_from_publisher_to_subscriber(
    wrapper: JetStreamWrapper, seen: Seen
) -> None:
    await wrapper.start_subscriber(Recorder)
    merchant = uuid4()
    payload = {
        "merchant_id": merchant,
        "at": datetime(2026, 1, 1, tzinfo=UTC),
        "price": Decimal("1.10"),
        "colour": Colour.RED,
        "model": Model(name="n"),
    }
    publisher = wrapper.create_publisher(CreditPublisher)
    with bind(Context.start(correlation_id="corr-1")) as context:
        event_id = await publisher.publish_event("evt.credit.account.debited", payload)
    await eventually(lambda: seen)
    ((event, headers, handled_in),) = seen
    assert UUID(event_id)
    assert event["event_id"] == event_id
    assert event["payload"]["merchant_id"] == str(merchant)
    assert event["payload"]["price"] == "1.10"
    assert event["payload"]["colour"] == "red"
    assert event["payload"]["model"] == {"name": "n"}
    assert event["metadata"]["source_service"] == "credit-service"
    assert event["correlation_id"] == "corr-1"
    assert headers is not None
    assert context.trace.trace_id in headers["traceparent"]
    assert handled_in is not None
    assert (handled_in.correlation_id, handled_in.trace.trace_id) == (
        "corr-1",
        context.trace.trace_id,
    )


async def test_prefixes_are_added_and_older_names_understood(wrapper: JetStreamWrapper) -> None:
    publisher = wrapper.create_publisher(CreditPublisher)
    await publisher.publish_command("credit.debit", {})
    await publisher.publish_event_response("credit.debited", {})
    await publisher.publish_event(event_type="evt.credit.told", payload={})
    subjects = [(await wrapper.js.get_msg("CREDIT", n)).subject for n in (1, 2, 3)]
    assert subjects == ["cmd.credit.debit", "evt.credit.debited", "evt.credit.told"]


async def test_the_same_key_is_stored_once_on_each_subject(wrapper: JetStreamWrapper) -> None:
    publisher = wrapper.create_publisher(CreditPublisher)
    for subject in ("evt.credit.a", "evt.credit.a", "evt.credit.b"):
        await publisher.publish_event(subject, {}, idempotency_key="order-1")
    assert (await wrapper.js.stream_info("CREDIT")).state.messages == 2


async def test_a_subject_of_another_domain_is_refused(wrapper: JetStreamWrapper) -> None:
    publisher = wrapper.create_publisher(CreditPublisher)
    with pytest.raises(ValidationError, match=r"does not publish to 'evt\.catalog\.x'"):
        await publisher.publish_event("evt.catalog.x", {})


async def test_a_narrow_stream_of_a_service_is_widened_and_deep_subjects_reach_it(
    wrapper: JetStreamWrapper,
) -> None:
    await wrapper.js.add_stream(name="NOTIFICATION", subjects=["cmd.notification.*"])
    publisher = wrapper.create_publisher(PlainPublisher)
    await publisher.publish_event("cmd.notification.email.send", {"to": "you"})
    info = await wrapper.js.stream_info("NOTIFICATION")
    assert info.state.messages == 1
    assert "evt.notification.>" in (info.config.subjects or ())
    assert publisher.own


async def test_bad_envelopes_and_failures_become_dead_letters_and_the_rest_flows(
    wrapper: JetStreamWrapper, seen: Seen
) -> None:
    publisher = wrapper.create_publisher(CreditPublisher)
    await publisher.ensure_stream()
    await wrapper.start_subscriber(Recorder)
    bodies = [b"{bad json", b'{"event_id": "e"}', _envelope("evt.other.subject")]
    for number, body in enumerate(bodies):
        await wrapper.bus.publisher.publish(
            OutgoingMessage("evt.credit.x", body, {}, f"bad{number}")
        )
    await publisher.publish_event("evt.credit.x", {"fail": True})
    await publisher.publish_event("evt.credit.x", {"fail": True, "forgiven": True})
    await publisher.publish_event("evt.credit.x", {"good": True})
    letters = DeadLetters(wrapper.bus)

    async def four() -> list[Any]:
        found = await letters.list()
        return found if len(found) == 4 else []

    dead = await eventually(four)
    assert {letter.body for letter in dead} >= set(bodies)
    assert sorted(letter.attempts for letter in dead) == [1, 1, 1, 2]
    await eventually(lambda: any(event["payload"].get("good") for event, _, _ in seen))


async def test_starting_returns_at_once_and_health_tells_of_a_missing_stream(
    wrapper: JetStreamWrapper, seen: Seen
) -> None:
    await wrapper.start_subscriber(Recorder)
    await wrapper.start_subscriber(Recorder)
    await eventually(lambda: wrapper.subscribers["recorder"].last_error)
    status = wrapper.subscribers["recorder"]
    assert status.state is State.WAITING
    assert "not there yet" in (status.last_error or "")
    assert wrapper.is_healthy()
    await wrapper.create_publisher(CreditPublisher).publish_event("evt.credit.x", {})
    await eventually(lambda: seen)


async def test_publishers_are_kept_by_class(wrapper: JetStreamWrapper) -> None:
    other: type[PlainPublisher] = type(
        "CreditPublisher", (PlainPublisher,), {"__module__": "elsewhere"}
    )
    first = wrapper.create_publisher(CreditPublisher)
    second = wrapper.create_publisher(other)
    assert wrapper.create_publisher(CreditPublisher) is first
    assert wrapper.get_publisher(CreditPublisher) is first
    assert wrapper.get_publisher(other) is second
    assert wrapper.get_publisher(PlainPublisher) is None
    assert len(wrapper.publishers) == 2


async def test_closing_waits_for_handlers_and_is_harmless_twice(
    nats_settings: NatsSettings,
) -> None:
    wrapper = JetStreamWrapper()
    await wrapper.close()
    assert not wrapper.is_connected()
    with pytest.raises(MessageBusError, match="not connected"):
        _ = wrapper.client
    await wrapper.connect(list(nats_settings.servers))
    begun, finished = asyncio.Event(), asyncio.Event()

    class Slow(Recorder):
        async def on_event(
            self, event: dict[str, Any], headers: dict[str, str] | None = None
        ) -> None:
            del event, headers
            begun.set()
            await asyncio.sleep(0.1)
            finished.set()

    await wrapper.create_publisher(CreditPublisher).publish_event("evt.credit.x", {})
    await wrapper.start_subscriber(Slow)
    await begun.wait()
    await wrapper.close()
    assert finished.is_set()
    await wrapper.close()


async def test_publisher_and_subscriber_work_on_a_bare_client(
    nats_settings: NatsSettings,
) -> None:
    client = await nats.connect(nats_settings.servers[0])
    got = asyncio.Event()

    class Own(DomainEventSubscriber):
        subject = "evt.credit.x"
        durable_name = "own"

        async def on_event(
            self, event: dict[str, Any], headers: dict[str, str] | None = None
        ) -> None:
            del event, headers
            got.set()

    try:
        await CreditPublisher(client, client.jetstream()).publish_event("evt.credit.x", {})
        subscriber = Own(client, client.jetstream())
        assert subscriber.stream_name == "CREDIT"
        with pytest.raises(KeyError, match="has no wrapper"):
            subscriber.dep("anything")
        listening = asyncio.create_task(subscriber.listen())
        await got.wait()
        await subscriber.stop()
        await listening
        assert client.is_connected
    finally:
        await client.close()


async def test_credentials_come_from_the_environment(
    nats_settings: NatsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_USER", "glam")
    monkeypatch.setenv("NATS_PASSWORD", "s3cret")
    wrapper = JetStreamWrapper()
    await wrapper.connect(list(nats_settings.servers))
    assert wrapper.bus.settings.user == "glam"
    assert "s3cret" not in repr(wrapper.bus.settings)
    await wrapper.close()


def test_a_domain_publisher_knows_its_stream_by_domain_or_by_service() -> None:
    class ByDomain(DomainEventPublisher):
        domain_stream = Streams.AI_PROCESSING

    class ByService(DomainEventPublisher):
        service_name_override = "webhook-service"

    class Neither(DomainEventPublisher):
        pass

    def made(kind: type[DomainEventPublisher]) -> DomainEventPublisher:
        return kind(None, None)  # type: ignore[arg-type]

    assert made(ByDomain).stream_name == "AI_PROCESSING"
    assert made(ByDomain).service_name == "ai-processing-service"
    assert made(ByService).stream_name == "WEBHOOKS"
    assert "evt.order.>" in made(ByService).subjects
    with pytest.raises(ValueError, match="neither"):
        _ = made(Neither).stream_name


def test_dependencies_are_found_by_name_and_by_type() -> None:
    dependencies = ServiceDependencies()
    dependencies.register("credit_service", 1)
    dependencies.register(Model, Model(name="n"))
    dependencies.register_many(anything=2)
    assert (dependencies.get("credit_service"), dependencies.get("anything")) == (1, 2)
    assert dependencies.get(Model).name == "n"
    with pytest.raises(KeyError, match="no dependency 'missing'; registered: Model, anything"):
        dependencies.get("missing")
    dependencies.clear()
    assert not dependencies.has("anything")


def test_the_first_paths_hand_on_the_same_objects() -> None:
    from shared.events import base_publisher, base_subscriber

    assert base_publisher.DomainEventPublisher is DomainEventPublisher
    assert base_subscriber.DomainEventSubscriber is DomainEventSubscriber
    assert shared.events.DomainEventPublisher is DomainEventPublisher
    assert shared.events.DomainEventSubscriber is DomainEventSubscriber


def _envelope(subject: str) -> bytes:
    return Envelope.from_dict(
        {"event_id": "e", "subject": subject, "timestamp": datetime.now(UTC), "payload": {}}
    ).encode()
