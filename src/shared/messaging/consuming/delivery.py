"""A message as it arrives, alone or in a batch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from shared.events.headers import MESSAGE_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shared.events import Envelope

# The durable that a message is for alone: one that was replayed from the dead letters, or put off.
REPLAY_FOR = "Glam-Replay-For"

# What a message that was put off by a schedule carries: see `shared.messaging.consuming.delayed`.
SCHEDULE = "Nats-Schedule"
ATTEMPTS = "Glam-Attempts"
KEPT_ID = "Glam-Message-Id"

# What the server puts on a message it publishes for a schedule, and what subscribers put there.
_MARKS = (ATTEMPTS, KEPT_ID, "Nats-Scheduler", "Nats-Schedule-Next", "Nats-Pin-Id")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Delivery:
    """One delivery of one message to one durable consumer.

    It is the message as it lies in the stream, and stays so: retries and dead letters go back to
    it. A middleware that changes the body or the headers hands a changed copy on:

    >>> from datetime import UTC, datetime
    >>> delivery = Delivery("evt.a.b", b"olleh", {}, "A", 1, 1, datetime(2025, 1, 1, tzinfo=UTC))
    >>> delivery.replace(body=delivery.body[::-1]).body
    b'hello'

    Attributes:
        subject: where it was published.
        body: what was published.
        headers: the headers it was published with.
        stream: the stream it lies in.
        sequence: its place there.
        attempt: the server's count of deliveries, the first being 1; of a message that was put off
            by a schedule it counts on from there.
        event_id: the id of what it tells, once a service has read it; before that "".
        payload: the body as the contract's type, once a service has read it; before that None.
        envelope: its envelope, if the handler asks for it or it had to be read; else None.
        unit_of_work: the transaction it is handled in, for a handler that asks for one.
    """

    __slots__ = (
        "_stored_at",
        "attempt",
        "body",
        "envelope",
        "event_id",
        "headers",
        "payload",
        "sequence",
        "stream",
        "subject",
        "unit_of_work",
    )

    def __init__(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        stream: str,
        sequence: int,
        attempt: int,
        published_at: datetime | int,
    ) -> None:
        self.subject = subject
        self.body = body
        self.headers = headers
        self.stream = stream
        self.sequence = sequence
        self.attempt = attempt
        self._stored_at = published_at
        self.event_id = ""
        self.payload: Any = None
        self.envelope: Envelope | None = None
        self.unit_of_work: Any = None

    @property
    def published_at(self) -> datetime:
        """When the stream stored the message."""
        stored_at = self._stored_at
        if isinstance(stored_at, int):  # nanoseconds since 1970, as the server tells it
            return _EPOCH + stored_at // 1_000 * _MICROSECOND
        return stored_at

    @property
    def stored_at_seconds(self) -> float:
        """When the stream stored the message, in seconds since 1970."""
        stored_at = self._stored_at
        return stored_at / 1e9 if isinstance(stored_at, int) else stored_at.timestamp()

    @property
    def deliveries(self) -> Sequence[Delivery]:
        """The messages of a batch; of a message that came alone, itself."""
        return (self,)

    def replace(
        self,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        payload: object = None,
    ) -> Delivery:
        """Return a copy in which what is given is another; the original stays.

        Once the body was read, the handler is given the payload: another body changes nothing then.
        """
        copy = Delivery(
            self.subject,
            self.body if body is None else body,
            self.headers if headers is None else headers,
            self.stream,
            self.sequence,
            self.attempt,
            self._stored_at,
        )
        copy.event_id = self.event_id
        copy.payload = self.payload if payload is None else payload
        copy.envelope = self.envelope
        copy.unit_of_work = self.unit_of_work
        return copy

    def map(self, change: Callable[[Delivery], Delivery]) -> Delivery:
        """Return what `change` makes of it; of a batch, a batch of what it makes of each."""
        return change(self)

    @property
    def log_fields(self) -> dict[str, object]:
        """What a log line tells of it."""
        return {
            "subject": self.subject,
            "stream": self.stream,
            "sequence": self.sequence,
            "attempt": self.attempt,
        }

    def __repr__(self) -> str:
        told = " ".join(f"{name}={value!r}" for name, value in self.log_fields.items())
        return f"<{type(self).__name__} {told}>"


class Batch(Delivery):
    """Several messages handled together, which a middleware is called for once.

    It stands where a single message would, with the subject of the subscription; bodies, headers
    and the rest are those of its `deliveries`, and asking the batch for them is an AttributeError.
    """

    __slots__ = ("_deliveries",)

    def __init__(self, subject: str, deliveries: Sequence[Delivery]) -> None:
        self.subject = subject
        self._deliveries = deliveries
        self.unit_of_work = None

    @property
    def deliveries(self) -> Sequence[Delivery]:
        """Its messages, as they came."""
        return self._deliveries

    def map(self, change: Callable[[Delivery], Delivery]) -> Batch:
        """Return a batch of what `change` makes of each message."""
        return Batch(self.subject, [change(delivery) for delivery in self._deliveries])

    @property
    def log_fields(self) -> dict[str, object]:
        """What a log line tells of it: its first message, and how many there are."""
        return {**self._deliveries[0].log_fields, "messages": len(self._deliveries)}

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a batch has no {name} of its own; each of its `deliveries` has one")


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
            ValueError: It is not such a subject.
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


def as_sent(headers: Mapping[str, str] | None) -> tuple[dict[str, str], int]:
    """Return the headers a message was published with, and the attempts it brings along."""
    if not headers:
        return {}, 0
    sent = dict(headers)
    if ATTEMPTS not in sent and "Nats-Pin-Id" not in sent and KEPT_ID not in sent:
        return sent, 0
    attempts, message_id = sent.get(ATTEMPTS, ""), sent.get(KEPT_ID)
    for name in (*_MARKS, REPLAY_FOR) if ATTEMPTS in sent else _MARKS:
        sent.pop(name, None)
    if message_id:
        sent[MESSAGE_ID] = message_id
    return sent, int(attempts) if attempts.isdecimal() else 0
