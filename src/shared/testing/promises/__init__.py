"""Suites of promises that a service runs in its own tests, on real servers.

    class TestDebit(HandlerPromises):
        service = service
        contract = ORDER_UPDATED

        def payload(self, number: int) -> OrderUpdatedPayload: ...
        async def effects(self, session: AsyncSession, payload: OrderUpdatedPayload) -> int: ...

A suite is a class that is not collected by itself; a subclass whose name begins with `Test` is,
with all its tests. It works in either mode of pytest-asyncio. Importing this needs pytest.

| suite | promises |
| --- | --- |
| `TransportPromises` | what is published arrives, again if it must, and is never dropped |
| `OutboxPromises` | events are committed with rows and published once, in order of their key |
| `InboxPromises` | a message is accepted once |
| `HandlerPromises` | a handler's effect happens once, whatever happens to messages and servers |
| `DeadLetterPromises` | what could not be handled is kept whole, can be replayed and discarded |
| `RepositoryPromises` | what is saved is found, in the transaction of the unit of work |
"""

from shared.testing.promises.dead_letters import DeadLetterPromises
from shared.testing.promises.handler import HandlerPromises
from shared.testing.promises.inbox import InboxPromises
from shared.testing.promises.outbox import OutboxPromises
from shared.testing.promises.repository import RepositoryPromises
from shared.testing.promises.transport import TransportPromises

__all__ = [
    "DeadLetterPromises",
    "HandlerPromises",
    "InboxPromises",
    "OutboxPromises",
    "RepositoryPromises",
    "TransportPromises",
]
