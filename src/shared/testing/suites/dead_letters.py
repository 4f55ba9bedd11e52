"""What could not be handled is kept whole, and can be replayed and discarded."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from shared.errors import NotFoundError, ValidationError
from shared.events import CONVENTION
from shared.messaging import Bus, DeadLetters, Subscription
from shared.testing.suites.base import QUICK, ContractSuite, subscribed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from shared.config import NatsSettings
    from shared.messaging import DeadLetter, Delivery


class DeadLetterSuite(ContractSuite):
    """Dead dead_letters of one contract. Set `contract` and `payload`."""

    def subscription(
        self, durable: str, handler: Callable[[Delivery], Awaitable[None]]
    ) -> Subscription:
        """Make a subscription to the contract."""
        return Subscription(
            subject=self.contract.subject,
            durable=durable,
            handler=handler,
            stream=CONVENTION.of(self.contract).name,
            retry=QUICK,
            ack_wait_seconds=1,
        )

    @asynccontextmanager
    async def dead_lettered(
        self, nats_settings: NatsSettings, seen: dict[str, list[bytes]]
    ) -> AsyncIterator[tuple[Bus, DeadLetter]]:
        """Publish a message that the first of two subscribers cannot handle, for once."""
        failing = True

        async def first(delivery: Delivery) -> None:
            nonlocal failing
            if failing:
                failing = False
                raise ValidationError("not yet")
            seen["first"].append(delivery.body)

        async def second(delivery: Delivery) -> None:
            seen["second"].append(delivery.body)

        seen |= {"first": [], "second": []}
        async with Bus(nats_settings, name="contract-tests") as bus:
            await bus.ensure_stream(CONVENTION.of(self.contract))
            async with (
                subscribed(bus, self.subscription("first", first)),
                subscribed(bus, self.subscription("second", second)),
            ):
                message = self.message(1)
                await bus.publisher.publish(message)
                await self.eventually(DeadLetters(bus).list)
                (dead,) = await DeadLetters(bus).list()
                assert dead.body == message.body
                sent = {"Nats-Msg-Id": message.message_id, **message.headers}
                assert dead.headers == sent
                assert (dead.durable, dead.attempts) == ("first", 1)
                assert dead.error_message == "not yet"
                yield bus, dead

    async def test_a_replayed_message_goes_to_who_failed_and_to_nobody_else(
        self, nats_settings: NatsSettings
    ) -> None:
        seen: dict[str, list[bytes]] = {}
        async with self.dead_lettered(nats_settings, seen) as (bus, dead):
            await DeadLetters(bus).replay(dead.sequence)
            await self.eventually(lambda: seen["first"] == [dead.body])
            assert await DeadLetters(bus).list() == []
            # A message behind it shows that the other one has passed the replayed one over.
            behind = self.message(2)
            await bus.publisher.publish(behind)
            await self.eventually(lambda: behind.body in seen["second"])
            assert seen["second"] == [dead.body, behind.body]

    async def test_a_discarded_message_is_gone(self, nats_settings: NatsSettings) -> None:
        async with self.dead_lettered(nats_settings, {}) as (bus, dead):
            await DeadLetters(bus).discard(dead.sequence, "not wanted")
            assert await DeadLetters(bus).list() == []
            with pytest.raises(NotFoundError):
                await DeadLetters(bus).replay(dead.sequence)
