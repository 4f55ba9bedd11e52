"""What is read from a stream, by whom, and how it goes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from shared.events.streams import CONVENTION
from shared.messaging.consuming.retry import RetryPolicy
from shared.messaging.steps import check_steps
from shared.resilience import Circuit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from shared.messaging.consuming.delivery import Delivery
    from shared.messaging.consuming.pipeline import Middleware

_DURABLE = re.compile(r"[^\s.*>/\\]+")


@dataclass(frozen=True, slots=True)
class Subscription:
    """What is read, by whom, and how.

    Args:
        subject: The filter; wildcards are allowed.
        durable: Name of the consumer. Replicas of a service share it, and with it the messages.
        handler: Returning acknowledges the message; what it raises decides by
            `shared.errors.outcome_of` and `retry`.
        stream: The stream; by default the one of the subject's domain, by convention.
        concurrency: How many messages are handled at a time in this process. A message is fetched
            only when there is room to handle it.
        retry: When a failed message comes again.
        ack_wait_seconds: After how long without a heartbeat the server gives the message to
            another replica; a message that was lost so before waits for the pause of `retry` as
            well (not with `order_by`). Running handlers have heartbeats sent for them, also
            while one blocks the event loop.
        deadline_seconds: How long one attempt may take before it is cancelled; None is for ever.
        order_by: The key of a message's order, None for a message that has none. Messages of one
            key are handled one at a time, in the order of the stream; also over retries and over
            replicas, of which only one is given messages at a time (servers from 2.11 on; before
            that, one message at a time in all). A message that waits for its next attempt keeps
            the later ones of its key back, and no others.
        batch: Hand messages to `handle_batch`, so many at a time; `concurrency` then counts
            batches. If a batch fails, its messages are handed to `handler` one by one.
        handle_batch: Handles the messages of a batch; all or none.
        double_ack: Wait for the server to confirm each acknowledgement before the message counts
            as handled. It costs a round trip, and makes it rare that a handled message comes again.
        outage_threshold: So many outages in a row (see `Subscriber`) stop the reading; one message
            at a time then tries, after the pauses of `retry`, until one gets through. None: never.
        middleware: Steps around the handler, the first outermost, each `async def step(delivery,
            call_next)`; inside the chassis' own: outage, circuit breaker, metrics, deadline, claim
            check (docs/messages.md). For a batch they are called once, with a `Batch`.
        metadata: What to write on the consumer; what others wrote there is left alone.

    Raises:
        ValueError: The durable's name or a number is unusable, no stream holds the subject, or
            options are given that exclude each other.
        TypeError: A middleware is not an async function of a delivery and `call_next`.
    """

    subject: str
    durable: str
    handler: Callable[[Delivery], Awaitable[None]]
    stream: str | None = None
    concurrency: int = 16
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    ack_wait_seconds: float = 30.0
    deadline_seconds: float | None = None
    order_by: Callable[[Delivery], str | None] | None = None
    batch: BatchPolicy | None = None
    handle_batch: Callable[[Sequence[Delivery]], Awaitable[None]] | None = None
    double_ack: bool = False
    outage_threshold: int | None = 5
    middleware: Sequence[Middleware] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _DURABLE.fullmatch(self.durable):
            raise ValueError(
                f"{self.durable!r} is not the name of a durable consumer: it must not be empty, "
                "nor hold white space or one of . * > / \\"
            )
        if self.concurrency < 1:
            raise ValueError(f"concurrency is {self.concurrency}: it must be 1 or more")
        if self.ack_wait_seconds <= 0:
            raise ValueError(f"ack_wait_seconds is {self.ack_wait_seconds}: it must be above 0")
        if self.outage_threshold is not None and self.outage_threshold < 1:
            raise ValueError(
                f"outage_threshold is {self.outage_threshold}: it must be 1 or more, or None for "
                "no circuit breaker"
            )
        if (self.batch is None) != (self.handle_batch is None):
            raise ValueError("batch and handle_batch go together: give both, or neither")
        if self.batch is not None and self.order_by is not None:
            raise ValueError(
                "batch and order_by exclude each other: a message that is tried again would be "
                "passed by the later ones of its key. With order_by, leave batch out"
            )
        check_steps(self.middleware, "delivery")
        if self.stream is None:
            object.__setattr__(self, "stream", CONVENTION.holding(self.subject).name)


class State(StrEnum):
    """Where a subscriber stands."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class SubscriberStatus:
    """What a subscriber is doing.

    `waiting` is: not reading yet, or not at the moment, and trying; `last_error` says why. `lag`
    is how many messages the server still had to give when it gave the last one. While `circuit` is
    not closed, something that every message needs is out, and hardly anything is read.
    """

    state: State
    stream: str
    subject: str
    durable: str
    in_flight: int
    lag: int
    last_error: str | None
    circuit: Circuit = Circuit.CLOSED


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How many messages a handler is given at once, and how long the first may wait for the rest.

    >>> @service.handles(PAID, batch=BatchPolicy(size=50, wait_seconds=0.5))
    ... async def book(paid: list[Paid], uow: UnitOfWork) -> None: ...
    >>> BatchPolicy(size=0)
    ValueError: size is 0: it must be 1 or more

    Raises:
        ValueError: A number is out of its bounds.
    """

    size: int = 100
    wait_seconds: float = 0.2

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}: it must be 1 or more")
        if self.wait_seconds < 0:
            raise ValueError(f"wait_seconds is {self.wait_seconds}: it must be 0 or more")
