"""A message as it arrives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of one message to one durable consumer.

    `attempt` is the server's count of deliveries, the first being 1; of a message that was put off
    by a schedule it counts on from there. `published_at` is when the stream stored the message.
    """

    subject: str
    body: bytes
    headers: Mapping[str, str]
    stream: str
    sequence: int
    attempt: int
    published_at: datetime


class AckSubject(NamedTuple):
    """What the server writes into the reply subject of a delivery (ADR-15).

    `number` counts the deliveries of the consumer, `attempt` those of the message.
    """

    stream: str
    consumer: str
    attempt: int
    sequence: int
    number: int
    stored_at_ns: int
    pending: int

    @classmethod
    def parse(cls, reply: str) -> AckSubject:
        """Read `$JS.ACK[.<domain>.<account>].<stream>.<consumer>.<...numbers>`.

        Raises:
            ValueError: When it is no such subject.
        """
        tokens = reply.split(".")
        if len(tokens) in {11, 12}:  # with a domain and an account, and perhaps one thing more
            del tokens[2:4], tokens[9:]
        try:
            js, ack, stream, consumer, attempt, sequence, number, stored_at_ns, pending = tokens
        except ValueError:
            js = ack = ""
        if js != "$JS" or ack != "ACK":
            raise ValueError(f"not a JetStream delivery: {reply!r}")
        return cls(
            stream,
            consumer,
            int(attempt),
            int(sequence),
            int(number),
            int(stored_at_ns),
            int(pending),
        )

    @property
    def stored_at(self) -> datetime:
        """When the stream stored the message."""
        return _EPOCH + self.stored_at_ns // 1_000 * _MICROSECOND
