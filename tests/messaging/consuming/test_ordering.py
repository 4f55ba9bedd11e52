"""Order per key, over retries, reconnections and replicas."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections import defaultdict
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic_core import to_json

from shared.config import NatsSettings
from shared.errors import ValidationError
from shared.messaging import Bus, DeadLetters, Delivery, RetryPolicy, State, Subscription
from shared.messaging.consuming.delivery import AckSubject
from shared.messaging.consuming.in_flight import InFlight, InFlightMessage, MessageState
from shared.messaging.consuming.ordering import InOrder, Lanes
from shared.messaging.consuming.pull import GROUP
from shared.testing import NatsProxy, eventually, faults
from tests.messaging.conftest import QUICK, SUBJECT, Subscribers, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nats.aio.msg import Msg

    from shared.dev import NatsServer

SERVICE = Path(__file__).parents[1] / "ordered_service.py"


def key(delivery: Delivery) -> str | None:
    """Return the letters before the number: `a7` belongs to `a`."""
    return delivery.body.decode().rstrip("0123456789") or None


def bodies(keys: str, count: int) -> list[bytes]:
    return [f"{k}{n}".encode() for n in range(count) for k in keys]


async def publish(bus: Bus, texts: Iterable[bytes]) -> None:
    await bus.publisher.publish_all(
        [message(0, body=text).__class__(SUBJECT, text, {}, text.decode()) for text in texts]
    )


def by_key(seen: Iterable[bytes]) -> dict[str, list[int]]:
    """Return the numbers of each key, each at its first time."""
    found: dict[str, list[int]] = defaultdict(list)
    for text in dict.fromkeys(seen):
        letters = text.decode().rstrip("0123456789")
        found[letters].append(int(text.decode()[len(letters) :]))
    return found


async def test_messages_of_one_key_are_handled_one_at_a_time_and_in_order(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []
    running: set[str | None] = set()
    together = 0

    async def handler(delivery: Delivery) -> None:
        nonlocal together
        assert key(delivery) not in running
        running.add(key(delivery))
        together = max(together, len(running))
        await asyncio.sleep(random.random() / 200)
        running.remove(key(delivery))
        seen.append(delivery.body)

    subscribers.start(bus, handler, order_by=key, concurrency=4)
    sent = bodies("abcdef", 40)
    await publish(bus, sent)
    await eventually(lambda: len(seen) == len(sent))
    assert by_key(seen) == {k: list(range(40)) for k in "abcdef"}
    assert together == 4
    assert await DeadLetters(bus).list() == []


async def test_a_message_that_waits_for_its_retry_holds_back_its_key_and_no_other(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []
    failing = True

    async def handler(delivery: Delivery) -> None:
        if delivery.body == b"a0" and failing:
            raise RuntimeError("not yet")
        seen.append(delivery.body)

    retry = RetryPolicy(attempts=1000, first_delay_seconds=0.05, max_delay_seconds=0.05)
    subscribers.start(bus, handler, order_by=key, concurrency=1, retry=retry)
    await publish(bus, bodies("ab", 30))
    await eventually(lambda: len(seen) == 30)
    assert by_key(seen) == {"b": list(range(30))}
    failing = False
    await eventually(lambda: len(seen) == 60)
    assert by_key(seen)["a"] == list(range(30))


async def test_a_message_that_comes_again_finds_a_place_though_its_key_took_them_all(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        if delivery.body in {b"a0", b"a300"} and delivery.attempt < 3:
            raise RuntimeError("again")
        seen.append(delivery.body)

    # More of one key than are looked ahead: whatever is held waits for the one that failed.
    await publish(bus, bodies("a", 600))
    subscribers.start(bus, handler, order_by=key, concurrency=2, retry=QUICK)
    await eventually(lambda: len(seen) == 600)
    assert by_key(seen)["a"] == list(range(600))


async def test_a_dead_letter_lets_the_next_of_its_key_go_on(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        if delivery.body == b"a1":
            raise RuntimeError("always")
        if delivery.body == b"a3":
            raise ValidationError("hopeless")
        seen.append(delivery.body)

    subscribers.start(bus, handler, order_by=key)
    await publish(bus, bodies("a", 6))
    await eventually(lambda: len(seen) == 4)
    assert by_key(seen)["a"] == [0, 2, 4, 5]
    assert {letter.body for letter in await DeadLetters(bus).list()} == {b"a1", b"a3"}


async def test_a_key_that_cannot_be_told_is_a_failure_of_its_message_alone(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)

    def fragile(delivery: Delivery) -> str | None:
        if delivery.body == b"a1":
            raise KeyError("merchant_id")
        return key(delivery)

    subscribers.start(bus, handler, order_by=fragile)
    await publish(bus, [*bodies("a", 3), b"7"])
    (letter,) = await eventually(DeadLetters(bus).list)
    await eventually(lambda: len(seen) == 3)
    assert (letter.body, letter.error_type) == (b"a1", "builtins.KeyError")


@pytest.mark.parametrize("fault", [faults.reordered_deliveries, faults.delayed_deliveries])
async def test_order_holds_when_messages_arrive_out_of_it(
    bus: Bus, nats_server: NatsServer, fault: Callable[[NatsProxy], faults.Fault]
) -> None:
    seen: list[bytes] = []
    running: set[str | None] = set()

    async def handler(delivery: Delivery) -> None:
        assert key(delivery) not in running
        running.add(key(delivery))
        await asyncio.sleep(0.001)
        running.remove(key(delivery))
        seen.append(delivery.body)

    first, *sent = bodies("a", 100)
    async with NatsProxy(nats_server) as proxy, AsyncExitStack() as stack:
        far = await stack.enter_async_context(Bus(NatsSettings(servers=(proxy.url,)), name="tests"))
        Subscribers(stack).start(far, handler, order_by=key, ack_wait_seconds=3)
        await publish(bus, [first])
        await eventually(lambda: seen)  # nothing is waited for any more
        async with fault(proxy):
            for text in sent:  # each comes alone: nobody has to wait for the one before
                await publish(bus, [text])
        await eventually(lambda: len(set(seen)) == 1 + len(sent))
    assert by_key(seen)["a"] == list(range(100))
    assert await DeadLetters(bus).list() == []


async def test_order_holds_over_a_killed_server(
    own_bus: Bus, own_nats_server: NatsServer, own_subscribers: Subscribers
) -> None:
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        await asyncio.sleep(0.002)
        seen.append(delivery.body)

    sent = bodies("abc", 150)
    await publish(own_bus, sent)
    own_subscribers.start(own_bus, handler, order_by=key, ack_wait_seconds=1)
    await eventually(lambda: len(seen) > 60)
    await own_nats_server.kill()
    await own_nats_server.restart()
    await eventually(lambda: len(set(seen)) == len(sent))
    assert by_key(seen) == {k: list(range(150)) for k in "abc"}


async def test_a_drained_replica_hands_over_at_once_and_in_order(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        await asyncio.sleep(0.001)
        seen.append(delivery.body)

    # An hour would pass before the server gave what is not handed over to the other.
    first = subscribers.start(bus, handler, order_by=key, ack_wait_seconds=3600)
    sent = bodies("abc", 200)
    await publish(bus, sent)
    await eventually(lambda: len(seen) > 50)
    subscribers.start(bus, handler, order_by=key, ack_wait_seconds=3600)
    await first.drain(5)
    await eventually(lambda: len(seen) == len(sent))
    assert by_key(seen) == {k: list(range(200)) for k in "abc"}


async def test_a_replica_that_had_nothing_to_do_leaves_no_request_that_would_take_the_next_message(
    bus: Bus, nats_settings: NatsSettings, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)

    async def requested() -> bool:
        return bool((await bus.js.consumer_info("TESTS", "tests")).num_waiting)

    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(Bus(nats_settings, name="other"))
        first = Subscribers(stack).start(other, handler, order_by=key, ack_wait_seconds=3600)
        await eventually(lambda: first.status.state is State.RUNNING)
        await eventually(requested)
    await publish(bus, [b"a0"])
    subscribers.start(bus, handler, order_by=key, ack_wait_seconds=3600)
    await eventually(lambda: seen == [b"a0"])


async def test_what_another_replica_acknowledges_late_stands_in_for_no_message_that_is_missing(
    bus: Bus, subscribers: Subscribers
) -> None:
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        seen.append(delivery.body)

    options = {"order_by": key, "ack_wait_seconds": 1.0}
    async with AsyncExitStack() as stack:
        first = Subscribers(stack).start(bus, handler, **options)
        await eventually(lambda: first.status.state is State.RUNNING)

    # The other one: it takes all, and then works on the first message of `a` only.
    inbox = bus.client.new_inbox()
    other = await bus.client.subscribe(inbox)
    await publish(bus, [b"a0", b"b0", b"a1"])
    request = {"batch": 3, "expires": 10_000_000_000, "group": GROUP}
    await bus.client.publish("$JS.API.CONSUMER.MSG.NEXT.TESTS.tests", to_json(request), inbox)
    a0, b0, _ = [await other.next_msg(timeout=10) for _ in range(3)]

    subscribers.start(bus, handler, **options)
    async with asyncio.TaskGroup() as tasks:
        working = tasks.create_task(_work_on(a0))
        await eventually(lambda: _redelivered(bus, 2))
        await asyncio.sleep(0.3)  # both are here, and the third is not
        await b0.ack()
        await asyncio.sleep(1)
        working.cancel()
    await eventually(lambda: {b"a0", b"a1"} <= set(seen))
    assert [text for text in seen if text != b"b0"] == [b"a0", b"a1"]


async def _work_on(message: Msg) -> None:
    while True:
        await message.in_progress()
        await asyncio.sleep(0.2)


async def _redelivered(bus: Bus, count: int) -> bool:
    info = await bus.js.consumer_info("TESTS", "tests")
    return (info.num_redelivered or 0) >= count


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_order_holds_when_a_replica_dies_or_stands_still(
    bus: Bus, tmp_path: Path, fault: signal.Signals
) -> None:
    history = tmp_path / "history.jsonl"
    replicas = [await _replica(bus, history, name) for name in ("one", "two")]
    try:
        sent = bodies("abcde", 60)
        await publish(bus, sent)

        def lines() -> list[tuple[str, str]]:
            text = history.read_text() if history.exists() else ""
            return [tuple(json.loads(line)) for line in text.splitlines()]

        await eventually(lambda: len(lines()) > 40)
        (worker,) = {who for who, _ in lines()}
        replicas[0 if worker == "one" else 1].send_signal(fault)
        at_fault = len(lines())
        await eventually(lambda: len({what for _, what in lines()}) == len(sent))
        if fault is signal.SIGSTOP:
            replicas[0 if worker == "one" else 1].send_signal(signal.SIGCONT)
            await asyncio.sleep(1)
        assert by_key(what.encode() for _, what in lines()) == {k: list(range(60)) for k in "abcde"}
        assert {who for who, _ in lines()[at_fault + 1 :]} >= {"two" if worker == "one" else "one"}
        # What was handled twice was in hand at the fault: at most one of each key.
        assert len(lines()) - len(sent) <= 5
    finally:
        for process in replicas:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _replica(bus: Bus, history: Path, name: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SERVICE),
        *bus.settings.servers,
        str(history),
        name,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"running\n"
    return process


async def test_an_older_server_keeps_the_order_one_at_a_time(
    bus: Bus,
    subscribers: Subscribers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("shared.messaging.streams.consumers._PINNED_SINCE", (99, 0))
    seen: list[bytes] = []

    async def handler(delivery: Delivery) -> None:
        if delivery.attempt == 1 and delivery.body == b"a3":
            raise RuntimeError("again")
        seen.append(delivery.body)

    await publish(bus, bodies("ab", 20))
    for _ in range(2):
        subscribers.start(bus, handler, order_by=key)
    await eventually(lambda: len(seen) == 40)
    assert by_key(seen) == {k: list(range(20)) for k in "ab"}
    assert "older than 2.11" in caplog.text


def test_only_the_oldest_of_a_lane_is_its_head() -> None:
    lanes = Lanes()
    for sequence in (5, 3, 9, 3):
        lanes.enter("a", (sequence, 0))
    lanes.enter("b", (4, 0))
    assert sorted(lanes.heads()) == [(3, 0), (4, 0)]
    assert lanes.leave("a", (5, 0)) == (3, 0)
    assert lanes.leave("a", (3, 0)) == (9, 0)
    assert lanes.leave("a", (9, 0)) is None
    assert list(lanes.heads()) == [(4, 0)]


async def test_batch_and_order_are_refused_together() -> None:
    from shared.messaging import BatchPolicy

    async def handle(_: object) -> None:
        pass

    with pytest.raises(ValueError, match="leave batch out"):
        Subscription(
            SUBJECT,
            "tests",
            handle,
            stream="TESTS",
            order_by=key,
            batch=BatchPolicy(),
            handle_batch=handle,
        )


async def test_what_was_ready_is_looked_at_again_before_it_begins(bus: Bus) -> None:
    async def handle(_: object) -> None:
        pass

    in_flight = InFlight(30)
    subscription = Subscription(SUBJECT, "tests", handle, stream="TESTS", order_by=key)
    order = InOrder(
        bus, subscription, key, in_flight=in_flight, ready=lambda: None, give_back=handle
    )

    def add(sequence: int, body: bytes) -> InFlightMessage:
        ack = AckSubject("TESTS", "tests", 1, sequence, sequence, 0, 0)
        message = InFlightMessage(SUBJECT, body, {}, ack, "")
        assert in_flight.add(message)
        order.add(message)
        return message

    later, given_back, earlier = add(5, b"a5"), add(6, b"b6"), add(3, b"a3")
    given_back.move(MessageState.GIVEN_BACK)
    assert order.take(at_once=False) == [earlier]
    assert order.take(at_once=False) == []
    order.done(earlier, over=True)
    assert order.take(at_once=False) == [later]
