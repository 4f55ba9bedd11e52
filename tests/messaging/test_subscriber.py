"""The subscriber engine on a real server, with real faults."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections import Counter
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nats.js.api import ConsumerConfig

from shared.config import NatsSettings
from shared.dev import TcpProxy
from shared.errors import DatabaseError, MessageBusError, UpstreamServiceError, ValidationError
from shared.messaging import (
    Bus,
    DeadLetters,
    Delivery,
    OutgoingMessage,
    RetryPolicy,
    State,
    Subscriber,
    Subscription,
)
from shared.messaging import subscriber as engine
from shared.messaging.subscriber import ATTEMPTS_FAILED, EXHAUSTED, HOPELESS, is_outage
from shared.testing import eventually

from .conftest import QUICK, STREAM, SUBJECT, Subscribers, message

if TYPE_CHECKING:
    from shared.dev import NatsServer


async def test_every_message_is_handled_and_acknowledged(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[int] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(int(delivery.body))

    subscribers.start(bus, handler)
    await bus.publisher.publish_all([message(n) for n in range(500)])
    await eventually(lambda: len(seen) == 500)
    assert sorted(seen) == list(range(500))

    async def acknowledged() -> bool:
        info = await bus.js.consumer_info("TESTS", "tests")
        return info.num_ack_pending == 0  # type: ignore[no-any-return]

    await eventually(acknowledged)


async def test_a_message_that_is_done_leaves_nothing_behind(
    bus: Bus, subscribers: Subscribers
) -> None:
    handled = 0

    async def handler(_: Delivery) -> None:
        nonlocal handled
        handled += 1

    subscriber = subscribers.start(bus, handler)

    async def blocks_after(first: int, count: int) -> int:
        """Handle so many messages; return how many blocks of memory Python holds then."""
        await bus.publisher.publish_all([message(n) for n in range(first, first + count)])
        await eventually(lambda: handled == first + count and not subscriber.status.in_flight)
        gc.collect()
        return sys.getallocatedblocks()

    before = await blocks_after(0, 1_000)
    assert await blocks_after(1_000, 3_000) - before < 1_000


async def test_a_delivery_tells_where_it_comes_from(bus: Bus, subscribers: Subscribers) -> None:
    seen: list[Delivery] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery)

    subscribers.start(bus, handler)
    ack = await bus.publisher.publish(message(7))
    await eventually(lambda: seen)
    (delivery,) = seen
    assert (delivery.subject, delivery.body, delivery.attempt) == (SUBJECT, b"7", 1)
    assert (delivery.stream, delivery.sequence) == (ack.stream, ack.sequence)
    assert delivery.headers["X-Number"] == "7"
    assert delivery.published_at.tzinfo is not None


async def test_no_more_than_the_agreed_number_is_handled_at_a_time(
    bus: Bus, subscribers: Subscribers
) -> None:
    running = peak = done = 0

    async def handler(_: Delivery) -> None:
        nonlocal running, peak, done
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.005)
        running -= 1
        done += 1

    subscriber = subscribers.start(bus, handler, concurrency=4)
    await bus.publisher.publish_all([message(n) for n in range(60)])
    await eventually(lambda: done == 60)
    assert peak == 4
    await eventually(lambda: subscriber.status.in_flight == 0)


async def test_what_a_handler_leaves_in_its_context_is_not_for_the_next(
    bus: Bus, subscribers: Subscribers
) -> None:
    left: ContextVar[int | None] = ContextVar("left", default=None)
    found: list[int | None] = []

    async def handler(delivery: Delivery) -> None:
        found.append(left.get())
        left.set(int(delivery.body))

    subscribers.start(bus, handler)
    await bus.publisher.publish_all([message(n) for n in range(50)])
    await eventually(lambda: len(found) == 50)
    assert set(found) == {None}


async def test_a_subscriber_that_is_cancelled_at_work_begins_nothing_more(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    await bus.publisher.publish_all([message(n) for n in range(2_000)])
    for number in range(5):
        seen = asyncio.Event()

        async def handler(_: Delivery, seen: asyncio.Event = seen) -> None:
            seen.set()

        subscription = Subscription(SUBJECT, f"cancelled-{number}", handler, "TESTS")
        running = asyncio.create_task(Subscriber(bus, subscription, service="tests").run())
        await seen.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert "refuse to end" not in caplog.text


async def test_a_handler_that_waits_holds_nobody_up(bus: Bus, subscribers: Subscribers) -> None:
    """Messages before it that wait for nothing share a task; those behind it get their own."""
    seen: list[int] = []
    last = asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        number = int(delivery.body)
        if number % 10 == 3:
            await last.wait()
        seen.append(number)
        if number == 49:
            last.set()

    subscribers.start(bus, handler, concurrency=16)
    await bus.publisher.publish_all([message(n) for n in range(50)])
    await eventually(lambda: len(seen) == 50)
    assert sorted(seen[-5:]) == [3, 13, 23, 33, 43]


async def test_one_that_fails_or_takes_too_long_leaves_the_others_alone(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[int] = []

    async def handler(delivery: Delivery) -> None:
        number = int(delivery.body)
        if delivery.attempt == 1 and number % 10 == 3:
            raise RuntimeError("again")
        if delivery.attempt == 1 and number % 10 == 7:
            await asyncio.sleep(60)
        seen.append(number)

    subscribers.start(bus, handler, deadline_seconds=0.2, concurrency=16)
    await bus.publisher.publish_all([message(n) for n in range(50)])
    await eventually(lambda: len(seen) == 50)
    assert sorted(seen) == list(range(50))


async def test_a_failing_message_is_tried_as_often_as_the_policy_says(
    bus: Bus, subscribers: Subscribers
) -> None:
    attempts: list[int] = []

    async def handler(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        raise RuntimeError("again")

    subscribers.start(bus, handler)
    await bus.publisher.publish(message(1))
    (letter,) = await eventually(DeadLetters(bus).list)
    assert attempts == [1, 2, 3]
    assert (letter.reason, letter.attempts) == (ATTEMPTS_FAILED, 3)
    assert (letter.error_type, letter.error_message) == ("builtins.RuntimeError", "again")


async def test_poison_ends_whole_among_the_dead_letters_and_the_rest_flows(
    bus: Bus, subscribers: Subscribers
) -> None:
    poison = bytes(range(256)) * 40
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        if delivery.body == poison:
            raise ValidationError("not for us")
        seen.append(delivery.body)

    subscribers.start(bus, handler, concurrency=1)
    sent = OutgoingMessage(SUBJECT, poison, {"X-Own": "kept", "traceparent": "00-x"}, "poison")
    await bus.publisher.publish_all([message(1), sent, message(2)])
    await eventually(lambda: seen == [b"1", b"2"])
    (letter,) = await eventually(DeadLetters(bus).list)
    assert letter.body == poison
    assert letter.headers == {"X-Own": "kept", "traceparent": "00-x", "Nats-Msg-Id": "poison"}
    assert (letter.reason, letter.attempts, letter.subject) == (HOPELESS, 1, SUBJECT)
    assert (letter.durable, letter.service, letter.stream) == ("tests", "test-service", "TESTS")
    assert letter.stream_sequence == 2
    info = await bus.js.consumer_info("TESTS", "tests")
    assert (info.num_ack_pending, info.num_pending) == (0, 0)


async def test_the_policy_of_a_handler_says_which_errors_are_worth_another_attempt(
    bus: Bus, subscribers: Subscribers
) -> None:
    attempts: Counter[bytes] = Counter()

    async def handler(delivery: Delivery) -> None:
        attempts[delivery.body] += 1
        raise ValidationError("soon") if delivery.body == b"1" else DatabaseError("never")

    policy = replace(QUICK, retry_on=(ValidationError,), give_up_on=(DatabaseError,))
    subscribers.start(bus, handler, retry=policy)
    await bus.publisher.publish_all([message(1), message(2)])

    async def both() -> bool:
        return len(await DeadLetters(bus).list()) == 2

    await eventually(both)
    assert attempts == {b"1": QUICK.attempts, b"2": 1}


async def test_an_outage_longer_than_all_attempts_costs_no_message(
    bus: Bus, subscribers: Subscribers
) -> None:
    tries: Counter[bytes] = Counter()
    done: list[bytes] = []
    out = True

    async def handler(delivery: Delivery) -> None:
        tries[delivery.body] += 1
        if out:
            raise DatabaseError("connection refused")
        done.append(delivery.body)

    subscriber = subscribers.start(bus, handler, concurrency=2)
    await bus.publisher.publish_all([message(n) for n in range(6)])
    await eventually(lambda: sum(tries.values()) > 4 * QUICK.attempts)
    assert subscriber.status.in_flight == 2
    assert "connection refused" in (subscriber.status.last_error or "")
    out = False
    await eventually(lambda: len(done) == 6)
    assert await DeadLetters(bus).list() == []


async def test_a_message_delivered_again_during_an_outage_tells_so_to_its_next_try(
    bus: Bus, nats_server: NatsServer
) -> None:
    seen: list[int] = []
    out = True

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.attempt)
        if out:
            raise DatabaseError("connection refused")
        raise ValidationError("hopeless")

    async with TcpProxy(nats_server.host, nats_server.port) as proxy, AsyncExitStack() as stack:
        settings = NatsSettings(servers=(f"nats://{proxy.host}:{proxy.port}",))
        far = await stack.enter_async_context(Bus(settings, name="tests"))
        Subscribers(stack).start(far, handler, ack_wait_seconds=1)
        await bus.publisher.publish(message(1))
        await eventually(lambda: seen)
        proxy.pause()
        await asyncio.sleep(1.5)  # longer than the server waits for a sign of life
        proxy.resume()
        await eventually(lambda: seen[-1] == 2)
        out = False
        (letter,) = await eventually(DeadLetters(bus).list)
        assert seen == sorted(seen)
        assert letter.attempts == 2


async def test_a_long_handler_keeps_its_message(bus: Bus, subscribers: Subscribers) -> None:
    begun = 0
    finish = asyncio.Event()

    async def handler(_: Delivery) -> None:
        nonlocal begun
        begun += 1
        await finish.wait()

    subscriber = subscribers.start(bus, handler, ack_wait_seconds=0.3)
    await bus.publisher.publish(message(1))
    await eventually(lambda: begun)
    await asyncio.sleep(1.5)
    info = await bus.js.consumer_info("TESTS", "tests")
    assert (begun, info.num_redelivered) == (1, 0)
    finish.set()
    await eventually(lambda: subscriber.status.in_flight == 0)


async def test_an_attempt_beyond_its_deadline_is_cancelled_and_counted(
    bus: Bus, subscribers: Subscribers
) -> None:
    attempts: list[int] = []
    cancelled = 0

    async def handler(delivery: Delivery) -> None:
        nonlocal cancelled
        attempts.append(delivery.attempt)
        if delivery.attempt == 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                raise

    subscribers.start(bus, handler, deadline_seconds=0.05)
    await bus.publisher.publish(message(1))
    await eventually(lambda: attempts == [1, 2])
    assert cancelled == 1


async def test_a_handler_that_cancels_itself_fails_its_attempt_only(
    bus: Bus, subscribers: Subscribers
) -> None:
    attempts: list[int] = []

    async def handler(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)
        if delivery.attempt == 1:
            raise asyncio.CancelledError

    subscriber = subscribers.start(bus, handler)
    await bus.publisher.publish(message(1))
    await eventually(lambda: attempts == [1, 2])
    assert subscriber.alive


async def test_the_stream_is_waited_for(bus: Bus, subscribers: Subscribers) -> None:
    await bus.js.delete_stream("TESTS")
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)

    subscriber = subscribers.start(bus, handler)
    await eventually(lambda: subscriber.status.last_error)
    assert (subscriber.alive, subscriber.status.state) == (True, State.WAITING)
    assert "stream TESTS is not there yet" in (subscriber.status.last_error or "")
    await bus.ensure_stream(STREAM)
    await bus.publisher.publish(message(1))
    await eventually(lambda: seen == [b"1"])
    assert subscriber.status.state is State.RUNNING


@pytest.mark.parametrize("loss", ["consumer", "stream"])
async def test_a_deleted_consumer_or_stream_heals(
    bus: Bus, subscribers: Subscribers, loss: str
) -> None:
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)

    subscribers.start(bus, handler)
    await bus.publisher.publish(message(1))
    await eventually(lambda: seen == [b"1"])
    if loss == "consumer":
        await bus.js.delete_consumer("TESTS", "tests")
    else:
        await bus.js.delete_stream("TESTS")
        await bus.ensure_stream(STREAM)
    await bus.publisher.publish(message(2))
    await eventually(lambda: seen[-1] == b"2")


async def test_a_consumer_that_differs_is_brought_in_line(
    bus: Bus, subscribers: Subscribers
) -> None:
    await bus.js.pull_subscribe(
        SUBJECT,
        durable="tests",
        stream="TESTS",
        config=ConsumerConfig(ack_wait=30, max_deliver=3, backoff=[1, 2]),
    )
    subscriber = subscribers.start(bus, _ignore, subject="evt.tests.*", ack_wait_seconds=7)
    await eventually(lambda: subscriber.status.state is State.RUNNING)
    config = (await bus.js.consumer_info("TESTS", "tests")).config
    assert (config.max_deliver, config.ack_wait) == (-1, 7)
    assert config.backoff == [
        7 + QUICK.pause(attempt) if attempt > 1 else 7 for attempt in (1, 2, 3)
    ]
    assert config.filter_subject == "evt.tests.*"


async def test_a_killed_server_costs_none_of_500_messages(
    own_bus: Bus, own_nats_server: NatsServer, own_subscribers: Subscribers
) -> None:
    seen: set[int] = set()
    middle = asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        await asyncio.sleep(0.002)
        seen.add(int(delivery.body))
        if len(seen) == 100:
            middle.set()

    own_subscribers.start(own_bus, handler, ack_wait_seconds=1)
    publishing = asyncio.create_task(_publish_until_stored(own_bus, 500))
    await middle.wait()
    await own_nats_server.kill()
    await own_nats_server.restart()
    await publishing
    await eventually(lambda: seen == set(range(500)))


async def test_a_connection_that_is_back_is_read_from_at_once_however_long_the_pause(
    bus: Bus, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_hour = RetryPolicy(first_delay_seconds=3600, max_delay_seconds=3600)
    monkeypatch.setattr(engine, "_HEALING", an_hour)
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)

    async with TcpProxy(nats_server.host, nats_server.port) as proxy, AsyncExitStack() as stack:
        settings = NatsSettings(servers=(f"nats://{proxy.address}",))
        far = await stack.enter_async_context(Bus(settings, name="tests"))
        subscriber = Subscribers(stack).start(far, handler)
        await eventually(lambda: subscriber.status.state is State.RUNNING)
        await bus.js.delete_consumer("TESTS", "tests")  # so that it has to ask, and cannot
        proxy.refuse()
        proxy.cut()
        await eventually(lambda: subscriber.status.state is State.WAITING)
        await bus.publisher.publish(message(1))
        proxy.accept()
        await eventually(lambda: seen)


async def test_a_frozen_server_is_survived(
    own_bus: Bus, own_nats_server: NatsServer, own_subscribers: Subscribers
) -> None:
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)

    own_subscribers.start(own_bus, handler)
    await own_bus.publisher.publish(message(1))
    await eventually(lambda: seen == [b"1"])
    await own_nats_server.pause()
    with pytest.raises(Exception, match="no answer in time"):
        await own_bus.publisher.publish(message(2))
    await own_nats_server.resume()
    await own_bus.publisher.publish(message(3))
    await eventually(lambda: set(seen) == {b"1", b"2", b"3"})


async def test_a_server_in_lame_duck_mode_costs_no_message(
    own_bus: Bus, own_nats_server: NatsServer, own_subscribers: Subscribers
) -> None:
    seen: Counter[int] = Counter()

    async def handler(delivery: Delivery) -> None:
        await asyncio.sleep(0.002)
        seen[int(delivery.body)] += 1

    own_subscribers.start(own_bus, handler, ack_wait_seconds=1)
    await own_bus.publisher.publish_all([message(n) for n in range(300)])
    await eventually(lambda: len(seen) > 50)
    # It sends its clients away one by one, and goes.
    assert own_nats_server.pid is not None
    os.kill(own_nats_server.pid, signal.SIGUSR2)
    await eventually(lambda: not own_bus.connected)
    await own_nats_server.restart()
    await eventually(lambda: set(seen) == set(range(300)))


async def test_what_killed_its_process_in_the_last_attempt_becomes_a_dead_letter(
    bus: Bus, subscribers: Subscribers
) -> None:
    await bus.publisher.publish(message(1))
    for _ in range(QUICK.attempts):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("suicidal_service.py")),
            *bus.settings.servers,
        )
        assert await process.wait() == -9
    seen: list[Delivery] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery)

    subscribers.start(bus, handler, ack_wait_seconds=0.5)
    await bus.publisher.publish(message(2))
    (letter,) = await eventually(DeadLetters(bus).list)
    assert (letter.body, letter.reason) == (b"1", EXHAUSTED)
    assert letter.attempts == QUICK.attempts + 1
    await eventually(lambda: seen)
    assert [delivery.body for delivery in seen] == [b"2"]


async def test_what_kills_its_process_again_and_again_does_so_at_the_pace_of_the_policy(
    bus: Bus, tmp_path: Path
) -> None:
    history = tmp_path / "history"
    await bus.publisher.publish(message(1))
    for _ in range(QUICK.attempts):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("suicidal_service.py")),
            *(*bus.settings.servers, str(history)),
            env={**os.environ, "FIRST_DELAY": "1"},
        )
        assert await process.wait() == -9
    first, second, third = map(float, history.read_text().split())
    # `ack_wait` after the first death, and the policy's second pause on top after the second.
    assert second - first >= 0.5
    assert third - second >= 0.5 + 2
    config = (await bus.js.consumer_info("TESTS", "tests")).config
    assert (config.ack_wait, config.backoff) == (0.5, [0.5, 2.5, 4.5])


async def test_draining_lets_running_handlers_finish_and_hands_back_the_rest(bus: Bus) -> None:
    finished: list[bytes] = []
    begun = 0
    go = asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        nonlocal begun
        begun += 1
        if delivery.body == b"0":
            await go.wait()
        else:
            await asyncio.Event().wait()
        finished.append(delivery.body)

    subscriber = _subscriber(bus, handler, concurrency=2)
    run = asyncio.create_task(subscriber.run())
    await bus.publisher.publish_all([message(n) for n in range(4)])
    await eventually(lambda: begun == 2)
    draining = asyncio.create_task(subscriber.drain(0.5))
    await eventually(lambda: subscriber.status.state is State.DRAINING)
    go.set()
    await draining
    await run
    assert (subscriber.alive, subscriber.status.state) == (False, State.STOPPED)
    assert finished == [b"0"]

    others: list[Delivery] = []

    async def other(delivery: Delivery) -> None:
        others.append(delivery)

    second = _subscriber(bus, other)
    second_run = asyncio.create_task(second.run())
    await eventually(lambda: len(others) == 3)
    assert {d.body: d.attempt for d in others} == {b"1": 2, b"2": 1, b"3": 1}
    await second.drain(1)
    await second_run


@pytest.mark.parametrize("who", ["a handler", "somebody who waits no longer"])
async def test_a_drain_that_is_broken_off_ends_the_subscriber_all_the_same(
    bus: Bus, subscribers: Subscribers, who: str
) -> None:
    begun = asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        begun.set()
        if who == "a handler":
            await subscriber.drain(0.1)
        await asyncio.Event().wait()

    await bus.publisher.publish(message(1))
    subscriber = Subscriber(bus, Subscription(SUBJECT, "tests", handler, "TESTS"), service="s")
    run = asyncio.create_task(subscriber.run())
    await begun.wait()
    if who != "a handler":
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await subscriber.drain(60)
    async with asyncio.timeout(25):
        await run
        await subscriber.drain(60)
    assert subscriber.status.in_flight == 0
    given_back = asyncio.Event()

    async def next_one(delivery: Delivery) -> None:
        given_back.set()

    subscribers.start(bus, next_one)
    await asyncio.wait_for(given_back.wait(), 25)


async def test_a_run_that_is_cancelled_twice_leaves_a_handler_that_refuses_and_nothing_else(
    bus: Bus,
) -> None:
    begun, released = asyncio.Event(), asyncio.Event()

    async def refusing(delivery: Delivery) -> None:
        begun.set()
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await released.wait()

    await bus.publisher.publish(message(1))
    threads = threading.active_count()
    tasks = asyncio.all_tasks()
    subscriber = Subscriber(bus, Subscription(SUBJECT, "tests", refusing, "TESTS"), service="s")
    run = asyncio.create_task(subscriber.run())
    await begun.wait()
    run.cancel()
    await asyncio.sleep(0.1)
    run.cancel()
    await asyncio.wait([run])
    released.set()
    await eventually(lambda: not asyncio.all_tasks() - tasks)
    await eventually(lambda: threading.active_count() <= threads)
    assert subscriber.status.state is State.STOPPED


async def test_a_cancelled_run_hands_back_what_it_held(bus: Bus) -> None:
    begun = asyncio.Event()

    async def blocked(_: Delivery) -> None:
        begun.set()
        await asyncio.Event().wait()

    subscriber = _subscriber(bus, blocked)
    run = asyncio.create_task(subscriber.run())
    await bus.publisher.publish(message(1))
    await begun.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not subscriber.alive

    attempts: list[int] = []

    async def handler(delivery: Delivery) -> None:
        attempts.append(delivery.attempt)

    second = _subscriber(bus, handler)
    second_run = asyncio.create_task(second.run())
    await eventually(lambda: attempts == [2])
    await second.drain(1)
    await second_run


async def test_draining_twice_or_before_running_is_harmless(bus: Bus) -> None:
    subscriber = _subscriber(bus, _ignore)
    await subscriber.drain(1)
    await subscriber.run()
    assert not subscriber.alive
    await subscriber.drain(1)
    with pytest.raises(RuntimeError, match="tests"):
        await subscriber.run()


async def test_replicas_share_the_messages(bus: Bus, subscribers: Subscribers) -> None:
    seen: Counter[bytes] = Counter()

    async def handler(delivery: Delivery) -> None:
        seen[delivery.body] += 1
        await asyncio.sleep(0.001)

    for _ in range(3):
        subscribers.start(bus, handler, concurrency=4)
    await bus.publisher.publish_all([message(n) for n in range(200)])
    await eventually(lambda: len(seen) == 200)
    assert set(seen.values()) == {1}


def test_only_a_part_that_every_message_needs_makes_an_outage() -> None:
    assert is_outage(DatabaseError("gone"))
    assert is_outage(MessageBusError("gone"))
    assert not is_outage(DatabaseError("bad", retryable=False))
    assert not is_outage(UpstreamServiceError("theirs"))
    assert not is_outage(RuntimeError("ours"))


async def _ignore(_: Delivery) -> None:
    pass


def _subscriber(bus: Bus, handler: object, **options: object) -> Subscriber:
    # The server would take an hour to deliver again what was not handed back.
    settings = {
        "subject": SUBJECT,
        "durable": "tests",
        "stream": "TESTS",
        "retry": QUICK,
        "ack_wait_seconds": 3600,
    }
    return Subscriber(
        bus,
        Subscription(handler=handler, **(settings | options)),  # type: ignore[arg-type]
        service="test-service",
    )


async def _publish_until_stored(bus: Bus, count: int) -> None:
    for number in range(count):
        stored = None
        while stored is None:
            try:
                stored = await bus.publisher.publish(message(number))
            except MessageBusError as error:
                assert error.retryable  # noqa: PT017 - whatever happens, trying again helps


async def test_a_dead_letter_that_cannot_be_stored_leaves_the_message_where_it_is(
    bus: Bus, subscribers: Subscribers
) -> None:
    await bus.js.add_stream(name="DEAD_LETTERS", subjects=["dlq.>"], max_msg_size=1)
    handled = 0

    async def handler(_: Delivery) -> None:
        nonlocal handled
        handled += 1
        raise ValidationError("not for us")

    subscriber = subscribers.start(bus, handler)
    await bus.publisher.publish(message(1))
    await eventually(lambda: "dlq" in (subscriber.status.last_error or ""))
    assert (await bus.js.consumer_info("TESTS", "tests")).num_ack_pending == 1
    await bus.js.update_stream(name="DEAD_LETTERS", subjects=["dlq.>"], allow_direct=True)
    (letter,) = await eventually(DeadLetters(bus).list)
    assert (letter.body, letter.reason, handled) == (b"1", HOPELESS, 1)
