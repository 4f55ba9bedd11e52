"""Waiting for the connection, for all who publish."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from shared.errors import MessageBusError

if TYPE_CHECKING:
    from nats.aio.client import Client

    from shared.messaging.connection.connection import Connection

# The client tells only its maker of reconnections, and a bus may go around another's client.
_LOOK_SECONDS = 0.02


class Outage:
    """One outage at a time: who meets it waits for its end, but not for longer than `wait_seconds`.

    Args:
        bus: whose connection it is.
        wait_seconds: counted from when the first met the outage, for all of them.
    """

    def __init__(self, bus: Connection, *, wait_seconds: float) -> None:
        self._bus = bus
        self._wait_seconds = wait_seconds
        self._which: tuple[Client, int] | None = None
        self._until = 0.0
        self._over: asyncio.Future[None] | None = None

    async def connected(self) -> Client:
        """Return the client once it is connected.

        Raises:
            MessageBusError: It is not, for longer than is waited; or never was, or never will be.
                Retryable all the same: another process may do it.
        """
        while not (client := self._bus.client).is_connected:
            loop = asyncio.get_running_loop()
            which = (client, client.stats["reconnects"])
            if which != self._which and self._over is None:
                self._which = which
                self._until = loop.time() + self._wait_seconds
            if self._bus.closed or loop.time() >= self._until:
                # A caller that tries again and again must not keep the loop from connecting.
                await asyncio.sleep(0)
                raise self._error()
            if self._over is None:
                self._over = loop.create_future()
                self._look()
            # Who gives up must not end the others' wait.
            await asyncio.shield(self._over)
        return client

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        over = self._bus.connected or self._bus.closed or loop.time() >= self._until
        if not over:
            loop.call_later(_LOOK_SECONDS, self._look)
        elif self._over is not None:
            self._over.set_result(None)
            self._over = None

    def _error(self) -> MessageBusError:
        if self._bus.closed:
            reason = "the message bus is closed"
        else:
            reason = f"no connection to NATS for {self._wait_seconds:g} s and longer"
        return MessageBusError(f"publish failed: {reason}", operation="publish")
