"""A message in hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from shared.messaging.consuming.delivery import Delivery

# A sequence alone would confuse the messages of a stream with those of its successor.
Key: TypeAlias = tuple[int, int]


@dataclass(eq=False, slots=True)
class Held:
    """A message given to us and not answered yet.

    Args:
        key: which message of the stream it is.
        delivery: as its handler sees it, with the count of the latest delivery.
        attempt: how often it was delivered, as the server counts; grows if it is delivered again
            while we hold it.
        reply: where the answer goes.
        number: of its latest delivery, among all of the consumer.
        arrived_at: when it came, on the clock of the event loop.
        sign_at: when the server last had a sign of life for it, the delivery included.
        carried: attempts it had made before it was put off by a schedule; part of `attempt`.
        made: attempts it has made with the present one, once that is known: deliveries that nobody
            began, or that were handed back without a fault, are not among them.
        lane: the key of its order, None if it has none.
        trouble: why its order cannot be told.
        answered: whether the server has its answer, or is about to.
        comes_again: whether that answer asked for it again.
        begun: whether an attempt was begun in this process.
        redelivered: whether it was delivered to us again while we held it.
        pause_seconds: how long it waits here before it is given back.
    """

    key: Key
    delivery: Delivery
    attempt: int
    reply: str
    arrived_at: float
    sign_at: float
    carried: int = 0
    number: int = 0
    made: int = 0
    lane: str | None = None
    trouble: Exception | None = None
    pause_seconds: float | None = None
    answered: bool = False
    comes_again: bool = False
    begun: bool = False
    redelivered: bool = False

    def told(self) -> dict[str, object]:
        """Return what a log line tells of it."""
        return {
            "subject": self.delivery.subject,
            "stream": self.delivery.stream,
            "sequence": self.delivery.sequence,
            "attempt": self.attempt,
        }
