"""Services written against the first design, unchanged, on the engine."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID, uuid4

import nats
import pytest
from nats.js.api import RetentionPolicy, StorageType, StreamConfig, StreamSource
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
from shared.testing import eventually

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
    handler_version = "7.1"
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
    assert {letter.version for letter in dead} == {"7.1"}
    await eventually(lambda: any(event["payload"].get("good") for event, _, _ in seen))


@pytest.mark.parametrize("package", ["pydantic", "ruff"])  # imported, and only installed
async def test_without_a_version_of_its_own_a_subscriber_has_that_of_its_package(
    wrapper: JetStreamWrapper, seen: Seen, package: str
) -> None:
    del seen
    publisher = wrapper.create_publisher(CreditPublisher)
    await publisher.ensure_stream()
    own = {"handler_version": None, "__module__": f"{package}.of.the.service"}
    packaged = type("Packaged", (Recorder,), own)
    await wrapper.start_subscriber(packaged)
    await publisher.publish_event("evt.credit.x", {"fail": True})
    (letter,) = await eventually(DeadLetters(wrapper.bus).list)
    assert letter.version == version(package)


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


class ReviewsPublisher(JetStreamEventPublisher):
    stream_name = "REVIEWS"
    subjects = ["evt.reviews.*"]  # noqa: RUF012 - as services write it
    service_name = "reviews-service"


class ByEventType(DomainEventSubscriber):
    event_type = "evt.credit.x"
    durable_name = "by-event-type"

    async def on_event(self, event: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self.get_dependency("seen").append((event, headers, current()))


async def test_an_event_type_is_a_subject(wrapper: JetStreamWrapper, seen: Seen) -> None:
    await wrapper.start_subscriber(ByEventType)  # type: ignore[type-abstract] # mypy cannot know
    await wrapper.create_publisher(CreditPublisher).publish_event("evt.credit.x", {})
    await eventually(lambda: seen)
    status = wrapper.subscribers["by-event-type"]
    assert (status.stream, status.subject) == ("CREDIT", "evt.credit.x")


def test_a_subscriber_with_neither_subject_nor_event_type_cannot_be_made() -> None:
    class Neither(DomainEventSubscriber):
        durable_name = "neither"

        async def on_event(
            self, event: dict[str, Any], headers: dict[str, str] | None = None
        ) -> None:
            raise NotImplementedError

    with pytest.raises(TypeError, match="subject"):
        Neither(None, None)  # type: ignore[abstract, arg-type]


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"storage": StorageType.MEMORY}, "storage is memory, wanted file"),
        ({"retention": RetentionPolicy.WORK_QUEUE}, "retention is workqueue, wanted limits"),
    ],
)
async def test_a_stream_of_other_settings_keeps_them_and_gets_the_subjects_it_lacks(
    wrapper: JetStreamWrapper, caplog: pytest.LogCaptureFixture, own: dict[str, Any], told: str
) -> None:
    made = StreamConfig(name="CREDIT", subjects=["evt.credit.*", "old.credit"], max_age=60)
    await wrapper.js.add_stream(made, **own)
    before = (await wrapper.js.stream_info("CREDIT")).config
    with caplog.at_level(logging.INFO):
        await wrapper.create_publisher(CreditPublisher).publish_event("evt.credit.a.b", {})
    info = await wrapper.js.stream_info("CREDIT")
    assert info.state.messages == 1
    assert set(info.config.subjects or ()) == {"evt.credit.>", "cmd.credit.>", "old.credit"}
    assert info.config.evolve(subjects=None) == before.evolve(subjects=None)
    advice = "move its messages to a new stream, or delete it"
    assert f"stream CREDIT keeps its own settings: {told}: {advice}" in caplog.messages


async def test_a_mirror_is_refused(wrapper: JetStreamWrapper) -> None:
    await wrapper.js.add_stream(name="ORIGIN", subjects=["evt.origin.>"])
    mirror = StreamConfig(name="CREDIT", mirror=StreamSource(name="ORIGIN"))
    await wrapper.js.add_stream(mirror)
    with pytest.raises(MessageBusError, match="a mirror takes no messages"):
        await wrapper.create_publisher(CreditPublisher).publish_event("evt.credit.x", {})


async def test_a_stream_that_was_deleted_is_made_again(wrapper: JetStreamWrapper) -> None:
    publisher = wrapper.create_publisher(CreditPublisher)
    await publisher.publish_event("evt.credit.x", {})
    await wrapper.js.delete_stream("CREDIT")
    await publisher.publish_event("evt.credit.x", {})
    assert (await wrapper.js.stream_info("CREDIT")).state.messages == 1


async def test_after_a_failure_the_stream_is_looked_at_again(wrapper: JetStreamWrapper) -> None:
    publisher = wrapper.create_publisher(ReviewsPublisher)
    await publisher.publish_event("evt.reviews.made", {})
    made = (await wrapper.js.stream_info("REVIEWS")).config
    await wrapper.js.update_stream(made.evolve(max_msg_size=500))
    with pytest.raises(MessageBusError, match="size"):
        await publisher.publish_event("evt.reviews.made", {"text": "x" * 500})
    await publisher.publish_event("evt.reviews.made", {"text": "x" * 500})


async def test_deep_subjects_reach_a_stream_outside_the_table(wrapper: JetStreamWrapper) -> None:
    publisher = wrapper.create_publisher(ReviewsPublisher)
    await publisher.publish_event("evt.reviews.review.made", {})
    info = await wrapper.js.stream_info("REVIEWS")
    assert (info.config.subjects, info.state.messages) == (["evt.reviews.>"], 1)


async def test_publishers_on_one_client_share_its_bus(nats_settings: NatsSettings) -> None:
    client = await nats.connect(nats_settings.servers[0])
    try:
        inboxes = []
        for _ in range(3):
            await CreditPublisher(client, client.jetstream()).publish_event("evt.credit.x", {})
            inboxes.append(len(client._subs))
        assert inboxes == [inboxes[0]] * 3
    finally:
        await client.close()


async def test_a_client_nobody_uses_any_more_takes_its_bus_along(
    nats_settings: NatsSettings,
) -> None:
    client = await nats.connect(nats_settings.servers[0])
    bus = weakref.ref(CreditPublisher(client, client.jetstream()).bus)
    await client.close()
    del client
    gc.collect()
    assert bus() is None


async def test_a_subscriber_listens_again_after_it_was_stopped(
    wrapper: JetStreamWrapper, seen: Seen
) -> None:
    publisher = wrapper.create_publisher(CreditPublisher)
    subscriber = wrapper.create_subscriber(Recorder)
    for times in (1, 2):
        listening = asyncio.create_task(subscriber.listen())
        await publisher.publish_event("evt.credit.x", {})
        await eventually(lambda: len(seen) >= times)  # noqa: B023 - awaited here
        with pytest.raises(RuntimeError, match="runs already"):
            await subscriber.listen()
        await subscriber.stop()
        await subscriber.stop()
        if times == 2:
            await listening


async def test_a_subscriber_stopped_before_it_began_ends_at_once(
    wrapper: JetStreamWrapper,
) -> None:
    await wrapper.start_subscriber(Recorder)
    await wrapper.close()
    assert not wrapper.subscribers


async def test_health_is_told_from_start_to_death(
    wrapper: JetStreamWrapper, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    die = asyncio.Event()

    class Mortal(Recorder):
        durable_name = "mortal"

        async def listen(self) -> None:
            await die.wait()
            raise RuntimeError("gone")

    await wrapper.start_subscriber(Mortal)
    await wrapper.start_subscriber(Recorder)
    assert wrapper.is_healthy()
    found = await wrapper.probe()
    assert {name: status.state for name, status in found.items()} == {
        "mortal": State.WAITING,
        "recorder": State.WAITING,
    }
    die.set()
    await eventually(lambda: not wrapper.is_healthy())
    with pytest.raises(MessageBusError, match="not listening any more: mortal"):
        await wrapper.probe()
    (told,) = [
        r for r in caplog.records if r.message == "subscriber mortal died; its messages wait"
    ]
    assert (told.name, told.levelname) == ("tests", "ERROR")
    assert told.exc_info is not None
    die.clear()
    await wrapper.start_subscriber(Mortal)
    assert wrapper.is_healthy()
    die.set()
    assert not seen


async def test_an_unusable_subscriber_is_told_on_starting(wrapper: JetStreamWrapper) -> None:
    class Unusable(Recorder):
        durable_name = "with.dots"

    with pytest.raises(ValueError, match="not the name of a durable consumer"):
        await wrapper.start_subscriber(Unusable)
    assert wrapper.is_healthy()


async def test_the_connection_is_told_to_the_wrappers_logger(
    nats_settings: NatsSettings, caplog: pytest.LogCaptureFixture
) -> None:
    wrapper = JetStreamWrapper(logging.getLogger("tests"))
    with caplog.at_level(logging.INFO):
        await wrapper.connect(list(nats_settings.servers))
    await wrapper.close()
    assert ("tests", "connected to NATS") in [(r.name, r.message) for r in caplog.records]


async def test_the_callers_version_and_keys_of_any_kind_are_taken(
    wrapper: JetStreamWrapper, seen: Seen
) -> None:
    await wrapper.start_subscriber(Recorder)
    publisher = wrapper.create_publisher(CreditPublisher)
    key = uuid4()
    await publisher.publish_event("evt.credit.x", {}, idempotency_key=7)
    await publisher.publish_event(
        "evt.credit.x", {}, idempotency_key=key, metadata={"version": "2.1.0"}
    )
    await eventually(lambda: len(seen) == 2)
    events = [event for event, _, _ in seen]
    assert [event["idempotency_key"] for event in events] == ["7", str(key)]
    assert [event["metadata"]["version"] for event in events] == ["1.0.0", "2.1.0"]


@pytest.mark.parametrize("concurrency", [None, 3])
async def test_messages_are_handled_one_at_a_time_unless_the_class_says_otherwise(
    wrapper: JetStreamWrapper, concurrency: int | None
) -> None:
    running: list[int] = []
    handled: list[int] = []
    most = 0
    full = asyncio.Event()

    class Counting(Recorder):
        async def on_event(
            self, event: dict[str, Any], headers: dict[str, str] | None = None
        ) -> None:
            nonlocal most
            del headers
            running.append(number := event["payload"]["number"])
            most = max(most, len(running))
            if most == (concurrency or 1):
                full.set()
            await full.wait()
            await asyncio.sleep(0.01)
            running.remove(number)
            handled.append(number)

    if concurrency is not None:
        Counting.concurrency = concurrency
    publisher = wrapper.create_publisher(CreditPublisher)
    for number in range(6):
        await publisher.publish_event("evt.credit.x", {"number": number})
    await wrapper.start_subscriber(Counting)
    await eventually(lambda: len(handled) == 6)
    assert most == (concurrency or 1)
    if concurrency is None:
        assert handled == list(range(6))


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
