"""Messages put off for long: by a schedule of the stream, outside of the consumer (ADR-51).

A message that waits in the consumer counts against its `max_ack_pending`; enough of them, and the
server stops delivering, silently. A schedule is a message of its own in the same stream,
which the server publishes to the subject when its time has come.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.errors import MessageBusError
from shared.events.streams import covers
from shared.messaging.connection.errors import bus_errors
from shared.messaging.consuming.delivery import ATTEMPTS, KEPT_ID, REPLAY_FOR, SCHEDULE
from shared.messaging.publisher import OutgoingMessage
from shared.messaging.publishing.wire import MESSAGE_ID

if TYPE_CHECKING:
    from shared.messaging.connection.bus import Bus
    from shared.messaging.consuming.in_flight import InFlightMessage

_TARGET = "Nats-Schedule-Target"


class Delayed:
    """Puts messages of one durable off."""

    def __init__(self, bus: Bus, durable: str) -> None:
        self._bus = bus
        self._durable = durable
        self._subjects: tuple[str, ...] = ()

    async def look_up(self, stream: str) -> None:
        """Learn whether the stream takes schedules (servers from 2.12 on), and where.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        with bus_errors("look up stream", stream=stream):
            config = (await self._bus.js.stream_info(stream)).config
        self._subjects = tuple(config.subjects or ()) if config.allow_msg_schedules else ()

    async def put_off(self, message: InFlightMessage, delay_seconds: float) -> bool:
        """Store a message to come again later; False where the stream has no room for schedules.

        It comes for this durable alone, with the attempts it has made, and with body and headers as
        they are. Twice put off after the same attempt it is stored once (inside of the stream's
        dedupe window).

        Raises:
            MessageBusError: It is not known to be stored.
        """
        sequence, stored_at_ns = message.key
        subject = f"{message.subject}.later.{self._durable}-{sequence}-{stored_at_ns}"
        if not any(covers(caught, subject) for caught in self._subjects):
            return False
        due = datetime.now(UTC) + timedelta(seconds=delay_seconds)
        headers = {
            name: value
            for name, value in message.headers.items()
            if not name.lower().startswith("nats-")
        }
        # Without one, codecs take place and stream for it: they are others when it comes again.
        headers[KEPT_ID] = message.headers.get(MESSAGE_ID) or f"{message.stream}:{message.sequence}"
        headers |= {
            ATTEMPTS: str(message.made),
            REPLAY_FOR: self._durable,
            SCHEDULE: f"@at {due.strftime('%Y-%m-%dT%H:%M:%S.%fZ')}",
            _TARGET: message.subject,
        }
        try:
            await self._bus.publisher.plain.publish(
                OutgoingMessage(subject, message.body, headers, f"{subject}:{message.made}")
            )
        except MessageBusError as error:
            if error.retryable:
                raise
            return False  # too large with these headers, or schedules were switched off
        return True
