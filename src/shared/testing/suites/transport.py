"""What is published arrives, again if it must, and is never dropped."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from shared.config import NatsSettings
from shared.errors import ValidationError
from shared.events import CONVENTION
from shared.messaging import Bus, DeadLetters, Subscription
from shared.testing.faults import killed, lost_acks, silent
from shared.testing.nats_proxy import NatsProxy
from shared.testing.suites.base import QUICK, ContractSuite, subscribed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from shared.dev import NatsServer
    from shared.messaging import Delivery


_MANY = 60
_KEYS = 5


class TransportSuite(ContractSuite):
    """Publishing and subscribing, at least once. Set `contract` and `payload`."""

    def subscription(
        self, handler: Callable[[Delivery], Awaitable[None]], **options: Any
    ) -> Subscription:
        """Make the subscription under test; override it for one like that of your service."""
        settings: dict[str, Any] = {"retry": QUICK, "ack_wait_seconds": 1, **options}
        return Subscription(
            subject=self.contract.subject,
            durable="contract-tests",
            handler=handler,
            stream=CONVENTION.of(self.contract).name,
            **settings,
        )

    def ordered_subscription(self, handler: Callable[[Delivery], Awaitable[None]]) -> Subscription:
        """Make the subscription whose order is tested; one at a time by default."""
        return self.subscription(handler, concurrency=1)

    @asynccontextmanager
    async def _by_proxy(
        self, nats_settings: NatsSettings, nats_server: NatsServer
    ) -> AsyncIterator[tuple[NatsProxy, Bus]]:
        async with NatsProxy(nats_server) as proxy:
            settings = nats_settings.model_copy(update={"servers": (proxy.url,)})
            async with Bus(settings, name="contract-tests") as bus:
                await bus.ensure_stream(CONVENTION.of(self.contract))
                yield proxy, bus

    async def test_every_message_arrives(self, nats_settings: NatsSettings) -> None:
        seen: set[bytes] = set()

        async def handler(delivery: Delivery) -> None:
            seen.add(delivery.body)

        messages = [self.message(number) for number in range(_MANY)]
        async with Bus(nats_settings, name="contract-tests") as bus:
            await bus.ensure_stream(CONVENTION.of(self.contract))
            async with subscribed(bus, self.subscription(handler)):
                await bus.publisher.publish_all(messages)
                await self.eventually(lambda: len(seen) == _MANY)
        assert seen == {message.body for message in messages}

    async def test_a_message_published_twice_is_stored_once(
        self, nats_settings: NatsSettings
    ) -> None:
        message = self.message(1)
        async with Bus(nats_settings, name="contract-tests") as bus:
            await bus.ensure_stream(CONVENTION.of(self.contract))
            first = await bus.publisher.publish(message)
            second = await bus.publisher.publish(message)
        assert (second.sequence, second.duplicate) == (first.sequence, True)

    async def test_what_fails_comes_again(self, nats_settings: NatsSettings) -> None:
        attempts: list[int] = []

        async def handler(delivery: Delivery) -> None:
            attempts.append(delivery.attempt)
            if delivery.attempt == 1:
                raise RuntimeError("once")

        async with Bus(nats_settings, name="contract-tests") as bus:
            await bus.ensure_stream(CONVENTION.of(self.contract))
            async with subscribed(bus, self.subscription(handler)):
                await bus.publisher.publish(self.message(1))
                await self.eventually(lambda: attempts == [1, 2])

    async def test_what_cannot_be_handled_is_kept_and_the_rest_flows(
        self, nats_settings: NatsSettings
    ) -> None:
        poison, good = self.message(1), self.message(2)
        seen: list[bytes] = []

        async def handler(delivery: Delivery) -> None:
            if delivery.body == poison.body:
                raise ValidationError("not for us")
            seen.append(delivery.body)

        async with Bus(nats_settings, name="contract-tests") as bus:
            await bus.ensure_stream(CONVENTION.of(self.contract))
            async with subscribed(bus, self.subscription(handler)):
                await bus.publisher.publish_all([poison, good])
                await self.eventually(lambda: seen == [good.body])
                await self.eventually(DeadLetters(bus).list)
            (dead,) = await DeadLetters(bus).list()
        assert dead.body == poison.body

    async def test_what_was_not_acknowledged_comes_again(
        self, nats_settings: NatsSettings, nats_server: NatsServer
    ) -> None:
        seen: list[bytes] = []

        async def handler(delivery: Delivery) -> None:
            seen.append(delivery.body)

        message = self.message(1)
        async with self._by_proxy(nats_settings, nats_server) as (proxy, bus), lost_acks(proxy):
            async with subscribed(bus, self.subscription(handler)):
                await bus.publisher.publish(message)
                await self.eventually(lambda: seen == [message.body])
            # Another subscriber: the one that handled it knows it, and does not again.
            async with subscribed(bus, self.subscription(handler)):
                await self.eventually(lambda: seen == [message.body] * 2)

    async def test_a_subscriber_whose_acknowledgement_was_lost_says_it_again(
        self, nats_settings: NatsSettings, nats_server: NatsServer
    ) -> None:
        seen: list[bytes] = []

        async def handler(delivery: Delivery) -> None:
            seen.append(delivery.body)

        message = self.message(1)
        async with self._by_proxy(nats_settings, nats_server) as (proxy, bus):

            async def again() -> bool:
                (info,) = await bus.js.consumers_info(CONVENTION.of(self.contract).name)
                return bool(info.num_redelivered)

            async def acknowledged() -> bool:
                (info,) = await bus.js.consumers_info(CONVENTION.of(self.contract).name)
                return not (info.num_pending or info.num_ack_pending)

            async with subscribed(bus, self.subscription(handler)):
                async with lost_acks(proxy):
                    await bus.publisher.publish(message)
                    await self.eventually(again)
                await self.eventually(acknowledged)
        assert seen == [message.body]

    async def test_what_a_lost_process_held_goes_to_another(
        self, nats_settings: NatsSettings, nats_server: NatsServer
    ) -> None:
        held = asyncio.Event()
        seen: list[bytes] = []

        async def hold(_: Delivery) -> None:
            held.set()
            await asyncio.Event().wait()

        async def handler(delivery: Delivery) -> None:
            seen.append(delivery.body)

        message = self.message(1)
        async with (
            NatsProxy(nats_server) as proxy,
            Bus(nats_settings, name="contract-tests") as bus,
            Bus(nats_settings.model_copy(update={"servers": (proxy.url,)}), name="lost") as lost,
        ):
            await bus.ensure_stream(CONVENTION.of(self.contract))
            async with subscribed(lost, self.subscription(hold)):
                await bus.publisher.publish(message)
                await self.eventually(held.is_set)
                async with silent(proxy), subscribed(bus, self.subscription(handler)):
                    await self.eventually(lambda: seen == [message.body])

    async def test_messages_survive_the_kill_of_the_server(
        self, own_nats_server: NatsServer
    ) -> None:
        seen: set[bytes] = set()

        async def handler(delivery: Delivery) -> None:
            seen.add(delivery.body)

        messages = [self.message(number) for number in range(_MANY)]
        settings = NatsSettings(servers=(own_nats_server.url,))
        async with Bus(settings, name="contract-tests") as bus:
            await bus.ensure_stream(CONVENTION.of(self.contract))
            await bus.publisher.publish_all(messages[: _MANY // 2])
            async with subscribed(bus, self.subscription(handler)):
                await self.eventually(lambda: seen)
                async with killed(own_nats_server):
                    pass

                async def published() -> bool:
                    for message in messages[_MANY // 2 :]:
                        await bus.publisher.publish(message)
                    return True

                await self.eventually(published)
                await self.eventually(lambda: len(seen) == _MANY)

    async def test_the_order_of_a_key_is_held(self, nats_settings: NatsSettings) -> None:
        seen: list[int] = []
        messages = [self.message(number) for number in range(_MANY)]
        numbers = {message.body: number for number, message in enumerate(messages)}

        async def handler(delivery: Delivery) -> None:
            number = numbers[delivery.body]
            await asyncio.sleep(0.005 if number % 3 == 0 else 0)
            seen.append(number)

        async with Bus(nats_settings, name="contract-tests") as bus:
            await bus.ensure_stream(CONVENTION.of(self.contract))
            async with subscribed(bus, self.ordered_subscription(handler)):
                await bus.publisher.publish_all(messages)
                await self.eventually(lambda: len(seen) == _MANY)
        for key in range(_KEYS):
            of_key = [number for number in seen if number % _KEYS == key]
            assert of_key == sorted(of_key)
