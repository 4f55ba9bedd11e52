"""What is read from a stream, by whom, and how it goes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from shared.events import stream_for_subject
from shared.messaging.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.messaging.delivery import Delivery

_DURABLE = re.compile(r"[^\s.*>/\\]+")


@dataclass(frozen=True, slots=True)
class Subscription:
    """What is read, by whom, and how.

    Args:
        subject: The filter; wildcards are allowed.
        durable: Name of the consumer. Replicas of a service share it, and with it the messages.
        handler: Returning acknowledges the message; what it raises decides by
            `shared.errors.outcome_of` and `retry`.
        stream: The stream, if the subject's domain does not tell it.
        concurrency: How many messages are handled at a time in this process. A message is fetched
            only when there is room to handle it.
        retry: When a failed message comes again.
        ack_wait_seconds: After how long without a sign of life the server gives the message to
            another replica. Running handlers show signs of life by themselves.
        deadline_seconds: How long one attempt may take before it is cancelled; None is for ever.

    Raises:
        ValueError: The durable's name or a number is unusable, or no stream holds the subject.
    """

    subject: str
    durable: str
    handler: Callable[[Delivery], Awaitable[None]]
    stream: str | None = None
    concurrency: int = 16
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    ack_wait_seconds: float = 30.0
    deadline_seconds: float | None = None

    def __post_init__(self) -> None:
        if not _DURABLE.fullmatch(self.durable):
            raise ValueError(f"{self.durable!r} is no name for a durable consumer")
        if self.concurrency < 1 or self.ack_wait_seconds <= 0:
            raise ValueError("concurrency >= 1 and ack_wait_seconds > 0 must hold")
        if self.stream is None:
            object.__setattr__(self, "stream", stream_for_subject(self.subject).value)


class State(StrEnum):
    """Where a subscriber stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class SubscriberStatus:
    """What a subscriber is doing.

    `waiting` is: not reading yet, or not at the moment, and trying; `last_error` says why. `lag`
    is how many messages the server still had to give when it gave the last one.
    """

    state: State
    stream: str
    subject: str
    durable: str
    in_flight: int
    lag: int
    last_error: str | None
