"""A handler's effect happens once, whatever happens to messages and servers."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from shared.messaging import Bus, DeadLetters, OutgoingMessage
from shared.testing.faults import database_down, doubled_deliveries, lost_acks
from shared.testing.nats_proxy import NatsProxy
from shared.testing.suites.base import ContractSuite, ServiceSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from shared.config import DatabaseSettings, NatsSettings
    from shared.database import Database
    from shared.dev import NatsServer, PostgresServer
    from shared.service import Application


_SOME = 10


class HandlerSuite(ContractSuite, ServiceSuite):
    """A handler that takes a unit of work. Set `service`, `contract`, `payload` and `effects`.

    Messages are published as another service would; the service runs as it does in production,
    without HTTP.
    """

    async def effects(self, session: AsyncSession, payload: Any) -> int:
        """Count the effects that this payload has had, as the database shows them.

        It is asked in the `scope` of the payload: for its tenant, if it names one.
        """
        raise NotImplementedError(f"{type(self).__name__}.effects(...) counts what was done")

    @asynccontextmanager
    async def running(
        self, database: DatabaseSettings, nats: NatsSettings, *, prepared: bool = False
    ) -> AsyncIterator[Application[Any]]:
        """Run the service, with a database that is prepared for the test."""
        if not prepared:
            async with self.database(database):
                pass
        async with self.service.assemble(self.settings(database, nats)) as application:
            # What who publishes them would have done.
            await application.bus.ensure_stream(application.streams.of(self.contract))
            yield application

    async def counted(self, database: Database, number: int) -> int:
        """Count the effects of the payload of a number."""
        payload = self.payload(number)
        with self.scope(payload):
            async with database.transaction() as session:
                return await self.effects(session, payload)

    async def all_had_their_effect(self, application: Application[Any]) -> None:
        """Wait until every message is acknowledged, then see that each took effect once."""

        async def handled() -> bool:
            for number in range(_SOME):
                if not await self.counted(application.database, number):
                    return False
            consumers = await application.bus.js.consumers_info(
                self.service.streams.of(self.contract).name
            )
            return not any(info.num_pending or info.num_ack_pending for info in consumers)

        await self.eventually(handled)
        for number in range(_SOME):
            assert await self.counted(application.database, number) == 1, self.payload(number)

    async def test_a_message_delivered_twice_takes_effect_once(
        self, database_settings: DatabaseSettings, nats_settings: NatsSettings
    ) -> None:
        async with self.running(database_settings, nats_settings) as application:
            for number in range(_SOME):
                message = self.message(number)
                # Beyond the stream's window for duplicates, the same event is stored again.
                again = OutgoingMessage(
                    message.subject, message.body, message.headers, secrets.token_hex(8)
                )
                for result in await application.bus.publisher.publish_all([message, again]):
                    assert not isinstance(result, Exception)
            await self.all_had_their_effect(application)

    async def test_replicas_share_the_work_and_do_it_once(
        self, database_settings: DatabaseSettings, nats_settings: NatsSettings
    ) -> None:
        async with (
            self.running(database_settings, nats_settings) as application,
            self.running(database_settings, nats_settings, prepared=True),
        ):
            messages = [self.message(number) for number in range(_SOME)]
            await application.bus.publisher.publish_all(messages)
            await self.all_had_their_effect(application)

    async def test_lost_acknowledgements_and_doubled_deliveries_do_no_harm(
        self,
        database_settings: DatabaseSettings,
        nats_settings: NatsSettings,
        nats_server: NatsServer,
    ) -> None:
        async with NatsProxy(nats_server) as proxy:
            settings = nats_settings.model_copy(update={"servers": (proxy.url,)})
            async with self.running(database_settings, settings) as application:
                messages = [self.message(number) for number in range(_SOME)]
                async with doubled_deliveries(proxy), lost_acks(proxy, share=0.2):
                    await application.bus.publisher.publish_all(messages)

                    async def all_seen() -> bool:
                        counts = [
                            await self.counted(application.database, number)
                            for number in range(_SOME)
                        ]
                        return all(counts)

                    await self.eventually(all_seen)
                for number in range(_SOME):
                    assert await self.counted(application.database, number) == 1

    async def test_what_is_no_message_of_the_contract_is_kept_and_the_rest_flows(
        self, database_settings: DatabaseSettings, nats_settings: NatsSettings
    ) -> None:
        async with self.running(database_settings, nats_settings) as application:
            poison = OutgoingMessage(self.contract.subject, b"{no json", {}, secrets.token_hex(8))
            messages = [self.message(number) for number in range(_SOME)]
            await application.bus.publisher.publish_all([poison, *messages])
            await self.all_had_their_effect(application)
            await self.eventually(DeadLetters(application.bus).list)
            dead = await DeadLetters(application.bus).list()
        assert {each.body for each in dead} == {poison.body}

    async def test_an_outage_of_the_database_costs_no_message(
        self, own_postgres_server: PostgresServer, nats_settings: NatsSettings
    ) -> None:
        settings = own_postgres_server.settings
        async with self.running(settings, nats_settings) as application:
            async with database_down(own_postgres_server):
                async with Bus(nats_settings, name="contract-tests") as bus:
                    messages = [self.message(number) for number in range(_SOME)]
                    await bus.publisher.publish_all(messages)
            await self.all_had_their_effect(application)
