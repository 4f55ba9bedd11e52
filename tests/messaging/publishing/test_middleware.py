"""Steps around publishing that fail, give up or hold a lock: the other messages go on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shared.errors import MessageBusError
from shared.messaging import OutgoingMessage, PubAck, PublishNext
from shared.messaging.publishing import middleware
from tests.messaging.conftest import message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.messaging import Bus


async def test_what_a_step_awaits_may_be_cancelled_and_who_publishes_is_not(bus: Bus) -> None:
    async def awaiting(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        if message.body == b"2":
            asyncio.get_running_loop().call_soon((key := asyncio.Future[None]()).cancel)
            await key
        return await call_next(message)

    publisher = bus.publisher.with_middleware(awaiting)
    first, cancelled, third = await publisher.publish_all([message(n) for n in (1, 2, 3)])
    assert isinstance(first, PubAck)
    assert isinstance(third, PubAck)
    assert isinstance(cancelled, MessageBusError)
    assert cancelled.retryable
    with pytest.raises(MessageBusError, match="failed in a middleware: CancelledError"):
        await publisher.publish(message(2))


async def test_a_step_that_waits_no_longer_is_alone_in_it(bus: Bus) -> None:
    held = asyncio.Event()

    async def impatient(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        if message.body == b"1":
            try:
                async with asyncio.timeout(0.01):
                    return await call_next(message)
            finally:
                held.set()
        await held.wait()
        return await call_next(message)

    publisher = bus.publisher.with_middleware(impatient)
    late, *others = await publisher.publish_all([message(n) for n in (1, 2, 3)])
    assert isinstance(late, MessageBusError)
    assert [isinstance(each, PubAck) for each in others] == [True, True]


async def test_a_step_that_gave_up_while_its_message_was_sent_keeps_no_outcome_from_the_others(
    bus: Bus,
) -> None:
    async def slowly(messages: Sequence[OutgoingMessage]) -> list[PubAck | MessageBusError]:
        outcomes = await bus.publisher.plain.publish_all(messages)
        gone.set()
        await asyncio.sleep(0.1)
        return outcomes

    async def impatient(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        sending = asyncio.ensure_future(call_next(message))
        if message.body == b"1":
            await gone.wait()
            sending.cancel()
        return await sending

    gone = asyncio.Event()
    through = middleware.through([impatient], slowly)
    late, other = await through([message(n) for n in (1, 2)])
    assert isinstance(late, MessageBusError)
    assert isinstance(other, PubAck)


@pytest.mark.parametrize("atomic", [False, True])
async def test_a_step_that_holds_a_lock_over_call_next_is_told_and_ends(
    bus: Bus, atomic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "_STUCK_SECONDS", 0.1)
    lock = asyncio.Lock()

    async def one_at_a_time(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        async with lock:
            return await call_next(message)

    publisher = bus.publisher.with_middleware(one_at_a_time)
    publish = publisher.publish_atomic if atomic else publisher.publish_all
    async with asyncio.timeout(20):
        first, second = await publish([message(n) for n in (1, 2)])
    assert isinstance(second, MessageBusError)
    assert second.retryable
    assert "must not hold a lock" in str(second)
    assert isinstance(first, MessageBusError) is atomic
    assert await publisher.publish(message(3))


async def test_a_batch_of_which_a_step_keeps_one_back_is_refused(bus: Bus) -> None:
    async def keeping_one(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        if message.body == b"1":
            return PubAck("", 0)
        return await call_next(message)

    publisher = bus.publisher.with_middleware(keeping_one)
    kept, refused, _ = await publisher.publish_atomic([message(n) for n in (1, 2, 3)])
    assert kept == PubAck("", 0)
    assert isinstance(refused, MessageBusError)
    assert refused.details["batch_refused"]


async def test_of_a_batch_nothing_is_sent_again_alone(bus: Bus) -> None:
    async def trying_again(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        try:
            return await call_next(message)
        except MessageBusError:
            return await call_next(message)

    publisher = bus.publisher.with_middleware(trying_again)
    await bus.publisher.publish(message(2))  # a batch is refused for a message that is there
    outcomes = await publisher.publish_atomic([message(n) for n in (1, 2, 3)])
    assert all(isinstance(each, MessageBusError) for each in outcomes)
    assert (await bus.js.stream_info("TESTS")).state.messages == 1
