"""Contract tests that a service runs among its own, on real servers.

    class TestDebit(HandlerSuite):
        service = service
        contract = ORDER_UPDATED

        def payload(self, number: int) -> OrderUpdatedPayload: ...
        async def effects(self, session: AsyncSession, payload: OrderUpdatedPayload) -> int: ...

A suite is a class that is not collected by itself; a subclass whose name begins with `Test` is,
with all its tests. It works in either mode of pytest-asyncio. Importing this needs pytest.

| suite | tests that |
| --- | --- |
| `TransportSuite` | what is published arrives, again if it must, and is never dropped |
| `OutboxSuite` | events are committed with rows and published once, in order of their key |
| `InboxSuite` | a message is accepted once |
| `HandlerSuite` | a handler's effect happens once, whatever happens to messages and servers |
| `DeadLetterSuite` | what could not be handled is kept whole, can be replayed and discarded |
| `RepositorySuite` | what is saved is found, in the transaction of the unit of work |
"""

from shared.testing.suites.dead_letters import DeadLetterSuite
from shared.testing.suites.handler import HandlerSuite
from shared.testing.suites.inbox import InboxSuite
from shared.testing.suites.outbox import OutboxSuite
from shared.testing.suites.repository import RepositorySuite
from shared.testing.suites.transport import TransportSuite

__all__ = [
    "DeadLetterSuite",
    "HandlerSuite",
    "InboxSuite",
    "OutboxSuite",
    "RepositorySuite",
    "TransportSuite",
]
