"""What the server's count of deliveries does not tell: which of them were attempts.

The server counts each delivery, be it begun or not. A message that was handed back by a drain, or
lost on its way to us with a connection, was delivered and never tried. What differs from the count
is written down here, in a stream that all replicas read. It is written and read seldom: when a
message is handed back without a fault, and for the last attempt of one that failed before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import nats.errors
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass
from pydantic_core import to_json

from shared.errors import MessageBusError
from shared.messaging.connection.errors import API_TIMEOUT_SECONDS, bus_errors
from shared.messaging.publisher import OutgoingMessage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.messaging.connection.bus import Bus
    from shared.messaging.consuming.in_flight import InFlightMessage

STREAM = "ATTEMPTS"
_MAX_AGE_SECONDS = 7 * 24 * 60 * 60

_STREAM_CONFIG = StreamConfig(
    name=STREAM,
    subjects=["attempts.>"],
    storage=StorageType.FILE,
    retention=RetentionPolicy.LIMITS,
    max_msgs_per_subject=1,
    max_age=_MAX_AGE_SECONDS,
    duplicate_window=120,
    allow_direct=True,
)


@dataclass(frozen=True, slots=True)
class Record:
    """After so many deliveries, so many attempts were made; `last` if the last one was begun."""

    deliveries: int
    made: int
    last: bool = False


_RECORD = TypeAdapter(Record)


class Attempts:
    """The records of one durable."""

    def __init__(self, bus: Bus, durable: str) -> None:
        self._bus = bus
        self._durable = durable

    async def read(self, message: InFlightMessage) -> Record | None:
        """Return what is written of a message.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        subject = f"$JS.API.DIRECT.GET.{STREAM}.{self._subject(message)}"
        with bus_errors("read attempts", stream=STREAM):
            try:
                answer = await self._bus.client.request(subject, timeout=API_TIMEOUT_SECONDS)
            except nats.errors.NoRespondersError:
                await self._bus.js.account_info()  # JetStream is there, so the stream is not
                return None
        if (answer.headers or {}).get("Status"):
            return None
        return _RECORD.validate_json(answer.data)

    async def write(self, message: InFlightMessage, record: Record) -> None:
        """Write of a message.

        Raises:
            MessageBusError: It is not known to be written.
        """
        (outcome,) = await self.write_all([(message, record)])
        if isinstance(outcome, MessageBusError):
            raise outcome

    async def write_all(
        self, records: Sequence[tuple[InFlightMessage, Record]]
    ) -> Sequence[MessageBusError | object]:
        """Write of many messages; the outcome of each stands at its place."""
        messages = [self._outgoing(message, record) for message, record in records]
        outcomes = await self._bus.publisher.plain.publish_all(messages)
        if any(
            isinstance(outcome, MessageBusError)
            and isinstance(outcome.__cause__, nats.errors.NoRespondersError)
            for outcome in outcomes
        ):
            # The stream is made by the first who needs it.
            await self._bus.ensure_stream_config(_STREAM_CONFIG)
            outcomes = await self._bus.publisher.plain.publish_all(messages)
        return outcomes

    def _outgoing(self, message: InFlightMessage, record: Record) -> OutgoingMessage:
        subject = self._subject(message)
        body = to_json(_RECORD.dump_python(record))
        return OutgoingMessage(subject, body, {}, f"{subject}:{body.decode()}")

    def _subject(self, message: InFlightMessage) -> str:
        sequence, stored_at_ns = message.key
        return f"attempts.{message.stream}.{self._durable}.{sequence}.{stored_at_ns}"


def attempt_number(message: InFlightMessage, record: Record | None) -> int:
    """Return which attempt this delivery is, taking those since the record as attempts."""
    if record is None:
        return message.attempt
    return record.made + message.attempt - record.deliveries
