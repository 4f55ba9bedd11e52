"""Steps of a user's own: around a handler, around a batch, around what is published."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from shared.errors import MessageBusError, ValidationError
from shared.messaging import (
    Batch,
    BatchPolicy,
    CallNext,
    DeadLetters,
    Delivery,
    JetStreamEventSubscriber,
    Middleware,
    OutgoingMessage,
    PubAck,
    PublishNext,
)
from shared.testing import eventually
from tests.messaging.conftest import SUBJECT, Subscribers, message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.messaging import Bus


class Steps:
    """Two steps that write down when they are entered and left, and what they saw."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def outer(self, delivery: Delivery, call_next: CallNext) -> None:
        self.seen.append(f"outer {len(delivery.deliveries)}")
        await call_next(delivery)
        self.seen.append("outer left")

    async def inner(self, delivery: Delivery, call_next: CallNext) -> None:
        self.seen.append("inner")
        try:
            await call_next(delivery)
        finally:
            self.seen.append("inner left")

    async def handler(self, delivery: Delivery) -> None:
        self.seen.append(delivery.body.decode())


async def test_the_first_step_is_the_outermost(bus: Bus, subscribers: Subscribers) -> None:
    steps = Steps()
    subscribers.start(bus, steps.handler, middleware=[steps.outer, steps.inner])
    await bus.publisher.publish(message(1))
    await eventually(lambda: len(steps.seen) == 5)
    assert steps.seen == ["outer 1", "inner", "1", "inner left", "outer left"]


async def test_a_step_may_pass_a_message_over(bus: Bus, subscribers: Subscribers) -> None:
    handled: list[bytes] = []

    async def only_even(delivery: Delivery, call_next: CallNext) -> None:
        if int(delivery.body) % 2 == 0:
            await call_next(delivery)

    async def handler(delivery: Delivery) -> None:
        handled.append(delivery.body)

    subscribers.start(bus, handler, middleware=[only_even])
    await bus.publisher.publish_all([message(n) for n in range(6)])
    await eventually(lambda: len(handled) == 3)
    assert sorted(handled) == [b"0", b"2", b"4"]
    await eventually(lambda: settled(bus))
    assert await DeadLetters(bus).list() == []


async def settled(bus: Bus) -> bool:
    info = await bus.js.consumer_info("TESTS", "tests")
    return not info.num_ack_pending and not info.num_pending


async def test_what_a_step_changes_is_for_the_handler_and_what_is_stored_is_the_original(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []

    async def reversed_body(delivery: Delivery, call_next: CallNext) -> None:
        await call_next(delivery.replace(body=delivery.body[::-1]))

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)
        if len(seen) == 1:
            raise RuntimeError("again")
        raise ValidationError("hopeless")

    subscribers.start(bus, handler, middleware=[reversed_body])
    await bus.publisher.publish(message(1, body=b"hello"))
    letters = await eventually(DeadLetters(bus).list)
    assert seen == [b"olleh", b"olleh"]
    assert (await DeadLetters(bus).get(letters[0].sequence)).body == b"hello"


async def test_the_error_of_a_step_decides_as_a_handlers_does(
    bus: Bus, subscribers: Subscribers
) -> None:
    async def strict(delivery: Delivery, call_next: CallNext) -> None:
        raise ValidationError("not signed")

    async def handler(delivery: Delivery) -> None:
        raise AssertionError("nobody gets here")

    subscribers.start(bus, handler, middleware=[strict])
    await bus.publisher.publish(message(1))
    (letter,) = await eventually(DeadLetters(bus).list)
    assert letter.error_message == "not signed"


async def test_a_batch_goes_through_a_step_once_and_each_message_after_it_failed(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[tuple[type, int]] = []
    handled: list[bytes] = []

    async def shouted(delivery: Delivery, call_next: CallNext) -> None:
        seen.append((type(delivery), len(delivery.deliveries)))
        await call_next(delivery.map(lambda each: each.replace(body=each.body.upper())))

    async def together(deliveries: Sequence[Delivery]) -> None:
        handled.extend(each.body for each in deliveries)
        if len(seen) == 1:
            raise RuntimeError("one by one, please")

    async def alone(delivery: Delivery) -> None:
        handled.append(delivery.body)

    await bus.publisher.publish_all([message(n, body=b"a%d" % n) for n in range(3)])
    subscribers.start(
        bus,
        alone,
        batch=BatchPolicy(size=3, wait_seconds=5),
        handle_batch=together,
        middleware=[shouted],
        concurrency=1,
    )
    await eventually(lambda: len(seen) == 4)
    (kind, count), *singles = seen
    assert (issubclass(kind, Batch), count) == (True, 3)
    assert [count for _, count in singles] == [1, 1, 1]
    await eventually(lambda: handled == [b"A0", b"A1", b"A2"] * 2)


@pytest.mark.parametrize("batched", [False, True])
async def test_what_a_step_leaves_in_its_context_is_not_there_for_the_next_message(
    bus: Bus, subscribers: Subscribers, batched: bool
) -> None:
    found: list[int | None] = []
    left: ContextVar[int | None] = ContextVar("left", default=None)

    async def leaving(delivery: Delivery, call_next: CallNext) -> None:
        found.append(left.get())
        left.set(len(found))
        if len(found) % 2:
            await asyncio.sleep(0)
        await call_next(delivery)

    async def alone(delivery: Delivery) -> None:
        """Take it."""

    async def together(deliveries: Sequence[Delivery]) -> None:
        """Take them."""

    options: dict[str, object] = {"batch": BatchPolicy(size=3), "handle_batch": together}
    await bus.publisher.publish_all([message(n) for n in range(60)])
    subscribers.start(bus, alone, middleware=[leaving], **(options if batched else {}))
    await eventually(lambda: settled(bus))
    assert len(found) >= 20
    assert set(found) == {None}


def test_a_batch_has_no_body_of_its_own_and_says_so() -> None:
    batch = Batch(SUBJECT, [])
    with pytest.raises(AttributeError, match="a batch has no body of its own"):
        _ = batch.body


async def test_a_class_of_the_first_design_names_its_steps(bus: Bus) -> None:
    steps = Steps()
    handled = asyncio.Event()

    class Recorder(JetStreamEventSubscriber):
        middleware: ClassVar[Sequence[Middleware]] = (steps.outer, steps.inner)
        stream_name = "TESTS"
        subject = SUBJECT
        durable_name = "recorder"

        async def on_event(
            self, event: dict[str, Any], headers: dict[str, str] | None = None
        ) -> None:
            steps.seen.append(event["payload"]["n"])
            handled.set()

    body = b'{"event_id":"e1","subject":"%s","timestamp":null,"payload":{"n":"one"}}'
    await bus.publisher.publish(message(1, body=body % SUBJECT.encode()))
    subscriber = Recorder(bus.client, bus.js)
    listening = asyncio.create_task(subscriber.listen())
    await asyncio.wait_for(handled.wait(), 25)
    await subscriber.stop()
    await listening
    assert steps.seen == ["outer 1", "inner", "one", "inner left", "outer left"]


# -- publishing ----------------------------------------------------------------------------------


async def signed(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
    return await call_next(replace(message, headers={**message.headers, "X-Signed": "ada"}))


async def refusing_two(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
    if message.body == b"2":
        raise ValidationError("two is refused")
    return await call_next(message)


async def stored(bus: Bus) -> list[tuple[bytes | None, str | None]]:
    last = (await bus.js.stream_info("TESTS")).state.last_seq
    found = [await bus.js.get_msg("TESTS", number) for number in range(1, last + 1)]
    return [(each.data, (each.headers or {}).get("X-Signed")) for each in found]


@pytest.mark.parametrize("atomic", [False, True])
async def test_each_message_goes_through_the_steps_and_they_are_sent_in_their_order(
    bus: Bus, atomic: bool
) -> None:
    slow_first = iter([0.05, 0.01, 0.0])

    async def dawdling(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        await asyncio.sleep(next(slow_first))
        return await call_next(message)

    publisher = bus.publisher.with_middleware(signed, dawdling)
    publish = publisher.publish_atomic if atomic else publisher.publish_all
    acks = await publish([message(n) for n in range(3)])
    assert acks == [PubAck("TESTS", n) for n in (1, 2, 3)]
    assert await stored(bus) == [(b"0", "ada"), (b"1", "ada"), (b"2", "ada")]
    assert await publisher.publish_all([]) == []


async def test_a_message_that_fails_in_a_step_holds_back_the_later_ones_of_its_key_alone(
    bus: Bus,
) -> None:
    publisher = bus.publisher.with_middleware(refusing_two)
    messages = [message(n) for n in (1, 2, 3, 4)]
    first, refused, held_back, other = await publisher.publish_all(
        messages, keys=["a", "a", "a", "b"]
    )
    assert isinstance(refused, MessageBusError)
    assert "two is refused" in str(refused)
    assert not refused.retryable
    assert isinstance(held_back, MessageBusError)
    assert held_back.details["held_back"]
    assert isinstance(first, PubAck)
    assert isinstance(other, PubAck)
    with pytest.raises(MessageBusError, match="two is refused"):
        await publisher.publish(message(2))


async def test_a_batch_of_which_one_fails_in_a_step_is_refused_as_a_whole(bus: Bus) -> None:
    publisher = bus.publisher.with_middleware(refusing_two)
    outcomes = await publisher.publish_atomic([message(n) for n in (1, 2, 3)])
    for outcome in outcomes[:1] + outcomes[2:]:
        assert isinstance(outcome, MessageBusError)
        assert outcome.details["batch_refused"]
    assert isinstance(outcomes[1], MessageBusError)
    assert await stored(bus) == []


async def test_a_step_may_send_a_message_again(bus: Bus) -> None:
    async def twice(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        await call_next(message)
        return await call_next(message)

    publisher = bus.publisher.with_middleware(twice)
    assert (await publisher.publish(message(1))).duplicate
    acks = await publisher.publish_all([message(2), message(3)])
    assert [isinstance(each, PubAck) and each.duplicate for each in acks] == [True, True]


async def test_what_the_engine_itself_publishes_goes_through_no_step(
    bus: Bus, subscribers: Subscribers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forbidden(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        raise AssertionError("this is none of the service's messages")

    async def handler(delivery: Delivery) -> None:
        raise ValidationError("hopeless")

    await bus.publisher.publish(message(1))
    monkeypatch.setattr(bus, "publisher", bus.publisher.with_middleware(forbidden))
    subscribers.start(bus, handler)
    await eventually(DeadLetters(bus).list)
    assert bus.publisher.plain is bus.publisher.plain.plain


async def test_a_step_that_returns_nothing_fails_its_message_and_no_other(bus: Bus) -> None:
    async def forgets(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        if message.message_id == "m2":
            return None  # type: ignore[return-value]
        return await call_next(message)

    publisher = bus.publisher.with_middleware(forgets)
    first, forgotten, third = await publisher.publish_all([message(n) for n in (1, 2, 3)])
    assert isinstance(first, PubAck)
    assert isinstance(third, PubAck)
    assert "forgets returned None: it must return what call_next returns" in str(forgotten)
    with pytest.raises(MessageBusError, match="forgets returned None"):
        await publisher.publish(message(2))


async def test_a_step_that_is_not_async_is_refused_where_it_is_given(bus: Bus) -> None:
    def plain(message: OutgoingMessage, call_next: PublishNext) -> PubAck: ...  # type: ignore[empty-body]

    with pytest.raises(TypeError, match="plain is not async: it must be async def step"):
        bus.publisher.with_middleware(plain)  # type: ignore[arg-type]
