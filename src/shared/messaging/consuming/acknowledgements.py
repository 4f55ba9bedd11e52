"""What the server is told of a message: acknowledged, give it again, never again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import nats.errors
from pydantic_core import to_json

from shared.errors import MessageBusError
from shared.messaging.connection.client import write
from shared.messaging.connection.errors import API_TIMEOUT_SECONDS, bus_error, bus_errors
from shared.messaging.consuming.in_flight import InFlightMessage, MessageState

if TYPE_CHECKING:
    from shared.messaging.connection.connection import Connection

_logger = logging.getLogger(__name__)

_ACK = b"+ACK"

_CONFIRM_TRIES = 3


class Acknowledgements:
    """Sends acknowledgements off the path of the handlers, in the order they were given.

    All of one turn of the event loop go to the client in one piece. Those that the connection does
    not take are dropped, and their messages come again: nothing is lost by it. A message has one
    end: what is said of one that has ended is passed over.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: list[tuple[InFlightMessage, bytes]] = []
        self._sending: asyncio.Task[None] | None = None

    def acknowledge(self, message: InFlightMessage) -> None:
        """Say that a message is handled."""
        if message.move(MessageState.ACKNOWLEDGED):
            self._send_soon(message, _ACK)

    def dead_lettered(self, message: InFlightMessage, reason: str) -> None:
        """Say that a message is never to come again, since it is among the dead letters now."""
        if message.move(MessageState.DEAD_LETTERED):
            self._send_soon(message, b"+TERM " + reason.encode())

    def given_back(self, message: InFlightMessage, delay_seconds: float = 0) -> None:
        """Ask for a message, whose state says so already, again after a pause."""
        delay = b" " + to_json({"delay": int(delay_seconds * 1e9)}) if delay_seconds > 0 else b""
        self._send_soon(message, b"-NAK" + delay)

    async def confirm(self, message: InFlightMessage) -> None:
        """Acknowledge, and wait until the server says that it knows.

        Raises:
            MessageBusError: It did not say so; the message may come again.
        """
        if not message.move(MessageState.ACKNOWLEDGED):
            return
        for left in reversed(range(_CONFIRM_TRIES)):
            try:
                with bus_errors("acknowledge", subject=message.subject):
                    await self._connection.client.request(
                        message.reply, _ACK, timeout=API_TIMEOUT_SECONDS
                    )
            except MessageBusError:
                if not left:
                    raise
            else:
                return

    async def sent(self) -> None:
        """Return once everything given was handed to the connection."""
        while self._sending is not None:
            await asyncio.wait([self._sending])

    def _send_soon(self, message: InFlightMessage, acknowledgement: bytes) -> None:
        self._waiting.append((message, acknowledgement))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._waiting:
                given, self._waiting = self._waiting, []
                commands = [
                    f"PUB {message.reply} {len(sent)}\r\n".encode() + sent + b"\r\n"
                    for message, sent in given
                ]
                try:
                    await write(self._connection.client, commands, messages=len(commands))
                except (nats.errors.Error, OSError, TimeoutError, MessageBusError) as error:
                    for message, _ in given:
                        refused = bus_error("acknowledge", error, subject=message.subject)
                        _logger.warning(
                            "%s; the message comes again", refused, extra=message.log_fields
                        )
        finally:
            self._sending = None
