"""Listens for commits in other processes, so that the relay need not wait for its next poll."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shared.delivery.outbox.outbox import channel_of
from shared.delivery.relay.uncancelled import uncancelled
from shared.errors import DatabaseError
from shared.resilience.backoff import set_within

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.database import Database


_logger = logging.getLogger(__name__)

_RECONNECT_SECONDS = 1.0
# A connection that was cut silently (a firewall, a lost host) is noticed by asking.
_ALIVE_EVERY_SECONDS = 30.0
_ALIVE_WITHIN_SECONDS = 10.0


class CommitListener:
    """Calls ``heard`` for every NOTIFY of the outbox, over one connection outside of the pool.

    A notification is a hint: while the connection is gone none is heard, and the relay polls.

    Args:
        database: whose outbox.
        heard: called on every notification, with what asyncpg tells of it.
        connected: called after each connection, also for the notifications missed before.
    """

    def __init__(
        self, database: Database, heard: Callable[..., None], *, connected: Callable[[], None]
    ) -> None:
        self._database = database
        self._heard = heard
        self._on_connected = connected

    async def run(self) -> None:
        """Listen until cancelled; connect again whenever the connection is lost."""
        while True:
            try:
                with uncancelled():
                    await self._listen()
            except (DatabaseError, OSError, TimeoutError) as error:
                _logger.warning("not listening to the outbox: %s", error)
            except Exception:
                _logger.exception("not listening to the outbox")
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen(self) -> None:
        connection = await self._database.connect()
        try:
            closed = asyncio.Event()
            connection.add_termination_listener(lambda _: closed.set())
            await connection.add_listener(channel_of(self._database.schema), self._heard)
            self._on_connected()
            while not await set_within(closed, _ALIVE_EVERY_SECONDS):
                await connection.execute("SELECT 1", timeout=_ALIVE_WITHIN_SECONDS)
            raise DatabaseError("the server closed the connection", operation="listen")
        finally:
            connection.terminate()
