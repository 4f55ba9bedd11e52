"""The answers to the server: acknowledged, give it again, never again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import nats.errors
from pydantic_core import to_json

from shared.errors import MessageBusError
from shared.messaging.connection.errors import API_TIMEOUT_SECONDS, bus_error, translated
from shared.messaging.publishing.wire import write

if TYPE_CHECKING:
    from shared.messaging.connection.bus import Bus
    from shared.messaging.consuming.in_flight import Held

_logger = logging.getLogger(__name__)

ACK = b"+ACK"
IN_PROGRESS = b"+WPI"

_CONFIRM_TRIES = 3


def nak(delay_seconds: float = 0) -> bytes:
    """Return the answer that asks for the message again, after a pause."""
    if delay_seconds <= 0:
        return b"-NAK"
    return b"-NAK " + to_json({"delay": int(delay_seconds * 1e9)})


def term(reason: str) -> bytes:
    """Return the answer that ends the message."""
    return b"+TERM " + reason.encode()


class Answers:
    """Sends answers off the path of the handlers, in the order they were given.

    All answers of one turn of the event loop go to the client in one piece. Those that the
    connection does not take are dropped, and their messages come again: nothing is lost by it.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._waiting: list[tuple[Held, bytes]] = []
        self._sending: asyncio.Task[None] | None = None

    def give(self, held: Held, answer: bytes) -> None:
        """Answer once; what follows the first answer is passed over."""
        if held.answered:
            return
        held.answered = True
        self._waiting.append((held, answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send())

    async def confirm(self, held: Held) -> None:
        """Acknowledge, and wait until the server says that it knows.

        Raises:
            MessageBusError: It did not say so; the message may come again.
        """
        if held.answered:
            return
        held.answered = True
        for left in reversed(range(_CONFIRM_TRIES)):
            try:
                with translated("acknowledge", subject=held.delivery.subject):
                    await self._bus.client.request(held.reply, ACK, timeout=API_TIMEOUT_SECONDS)
            except MessageBusError:
                if not left:
                    raise
            else:
                return

    async def sent(self) -> None:
        """Return once everything given was handed to the connection."""
        while self._sending is not None:
            await asyncio.wait([self._sending])

    async def _send(self) -> None:
        try:
            while self._waiting:
                given, self._waiting = self._waiting, []
                commands = [
                    f"PUB {held.reply} {len(answer)}\r\n".encode() + answer + b"\r\n"
                    for held, answer in given
                ]
                try:
                    await write(self._bus.client, commands, messages=len(commands))
                except (nats.errors.Error, OSError, TimeoutError, MessageBusError) as error:
                    for held, _ in given:
                        refused = bus_error("answer", error, subject=held.delivery.subject)
                        _logger.warning("%s; the message comes again", refused, extra=held.told())
        finally:
            self._sending = None
