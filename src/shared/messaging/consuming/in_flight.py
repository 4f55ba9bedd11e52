"""The messages that the server waits for us to acknowledge, and what state each of them is in."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import StrEnum
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from shared.messaging.consuming.delivery import Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from shared.messaging.consuming.delivery import AckSubject
    from shared.messaging.consuming.subscription import BatchPolicy

# A sequence alone would confuse the messages of a stream with those of its successor.
Key: TypeAlias = tuple[int, int]

# How many handled messages are known again, should their acknowledgement have been lost.
_REMEMBERED = 10_000

# With so many messages waiting in the consumer, shorter pauses are spent outside of it as well.
_CROWDED = 5_000


class MessageState(StrEnum):
    """Where a message stands, from its arrival to its end."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    ACKNOWLEDGED = "acknowledged"
    GIVEN_BACK = "given_back"
    DEAD_LETTERED = "dead_lettered"


_ENDS = frozenset({MessageState.ACKNOWLEDGED, MessageState.GIVEN_BACK, MessageState.DEAD_LETTERED})

# What may follow: three states of a message that is in flight, and its three ends.
TRANSITIONS: Mapping[MessageState, frozenset[MessageState]] = {
    # begun; not for us or handled before; not begun after all; its last attempt never ended
    MessageState.WAITING: frozenset({MessageState.RUNNING}) | _ENDS,
    # failed, with an order to keep: it waits here; handled; failed; failed for good
    MessageState.RUNNING: frozenset({MessageState.PAUSED}) | _ENDS,
    # its pause is over, or the subscriber ends
    MessageState.PAUSED: frozenset({MessageState.GIVEN_BACK}),
    MessageState.ACKNOWLEDGED: frozenset(),
    MessageState.GIVEN_BACK: frozenset(),
    MessageState.DEAD_LETTERED: frozenset(),
}


class InFlightMessage(Delivery):
    """A message that the server waits for us to acknowledge; to its handler, a `Delivery`.

    Attributes:
        key: which message of the stream it is.
        state: where it stands; changed by `move` alone.
        reply: where its acknowledgement goes.
        number: of its latest delivery, among all of the consumer.
        arrived_at: when it came, on the clock of the event loop.
        heartbeat_at: when the server last heard of it, the delivery included.
        carried: attempts it had made before it was put off by a schedule; part of `attempt`.
        made: attempts it has made with the present one, once that is known: deliveries that nobody
            began, or that were handed back without a fault, are not among them.
        lane: the key of its order, None if it has none.
        trouble: why its order cannot be told.
        redelivered: whether it was delivered to us again while it was in flight.
        pause_seconds: how long it waits here before it is given back.
    """

    __slots__ = (
        "arrived_at",
        "carried",
        "heartbeat_at",
        "key",
        "lane",
        "made",
        "number",
        "pause_seconds",
        "redelivered",
        "reply",
        "state",
        "trouble",
    )

    def __init__(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        ack: AckSubject,
        reply: str,
        *,
        carried: int = 0,
    ) -> None:
        stored_at_ns = ack.stored_at_ns
        super().__init__(
            subject, body, headers, ack.stream, ack.sequence, carried + ack.attempt, stored_at_ns
        )
        self.key: Key = (ack.sequence, stored_at_ns)
        self.state = MessageState.WAITING
        self.reply = reply
        self.number = ack.number
        self.arrived_at = self.heartbeat_at = monotonic()
        self.carried = carried
        self.made = 0
        self.lane: str | None = None
        self.trouble: Exception | None = None
        self.redelivered = False
        self.pause_seconds = 0.0

    def move(self, state: MessageState) -> bool:
        """Enter a state; False, and nothing changes, for a message that has ended.

        Raises:
            RuntimeError: The table of transitions knows no way from its state to that one.
        """
        following = TRANSITIONS[self.state]
        if state in following:
            self.state = state
            return True
        if following:
            raise RuntimeError(f"no message goes from {self.state} to {state}")
        return False

    @property
    def ended(self) -> bool:
        """Whether the server has its acknowledgement of whatever kind, or is about to."""
        return self.state in _ENDS

    @property
    def over(self) -> bool:
        """Whether it ended and does not come again."""
        return self.state in _ENDS and self.state is not MessageState.GIVEN_BACK


class InFlight:
    """All messages of one subscription that are in flight; nobody else keeps or changes the table.

    Each of them ends acknowledged, given back or dead-lettered, once: by `InFlightMessage.move`,
    or, if nobody said what becomes of it, by `finish`, which leaves it to the server to give it
    again.
    """

    def __init__(self, ack_wait_seconds: float, *, remember: int = _REMEMBERED) -> None:
        self._ack_wait_seconds = ack_wait_seconds
        self._messages: dict[Key, InFlightMessage] = {}
        self._handled = RecentlyHandled(remember)
        self._given_back: dict[Key, float] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[InFlightMessage]:
        """Return those in flight now; the table may change meanwhile."""
        return iter(list(self._messages.values()))

    def get(self, key: Key) -> InFlightMessage | None:
        """Return the message of that key, if it is in flight."""
        return self._messages.get(key)

    def came_again(self, key: Key, ack: AckSubject, reply: str) -> bool:
        """Note that a message was delivered; True if it is one we still work on.

        We were cut off for longer than the server waits, and go on under the new delivery.
        """
        self._given_back.pop(key, None)
        message = self._messages.get(key)
        if message is None or message.ended:
            return False
        message.attempt = message.carried + ack.attempt
        message.number, message.reply = ack.number, reply
        message.heartbeat_at, message.redelivered = monotonic(), True
        return True

    def add(self, message: InFlightMessage) -> bool:
        """Take a message in; False if it was handled before, and its acknowledgement lost."""
        key = message.key
        known = self._messages.get(key)
        if known is not None and known.over:
            return False
        if message.attempt - message.carried > 1 and key in self._handled:
            return False
        self._messages[key] = message
        return True

    def begin(self, message: InFlightMessage) -> bool:
        """Let an attempt begin; False if another replica may have the message by now.

        That is when this process stood still, or was cut off, for longer than the server waits.
        """
        if monotonic() - message.heartbeat_at < self._ack_wait_seconds:
            return message.move(MessageState.RUNNING)
        message.move(MessageState.GIVEN_BACK)
        return False

    def give_back_at(self, message: InFlightMessage, delay_seconds: float) -> bool:
        """Note that a message is given back, to come again after a pause; False if it had ended."""
        if not message.move(MessageState.GIVEN_BACK):
            return False
        self._given_back[message.key] = monotonic() + delay_seconds
        return True

    def finish(self, message: InFlightMessage) -> bool:
        """Let go of a message whose attempt is through; tell whether it is over for good."""
        message.move(MessageState.GIVEN_BACK)  # unless it has ended: then this changes nothing
        key = message.key
        over = message.state is not MessageState.GIVEN_BACK
        if over:
            self._handled.add(key)
        if self._messages.get(key) is message:
            del self._messages[key]
        message.payload = message.envelope = None  # its acknowledgement may wait, and needs no body
        return over

    def take_unbegun(self) -> list[InFlightMessage]:
        """Let go of the messages that nobody has begun, and return them, to be given back."""
        unbegun = [m for m in self._messages.values() if m.state is MessageState.WAITING]
        self.forget(unbegun)
        return unbegun

    def forget(self, messages: list[InFlightMessage]) -> None:
        """Let go of messages that are not begun, and are to be given back."""
        for message in messages:
            self._messages.pop(message.key, None)

    def paused(self) -> list[InFlightMessage]:
        """Return those that wait here for their next attempt."""
        return [m for m in self if m.state is MessageState.PAUSED]

    def need_heartbeat(self) -> Iterator[InFlightMessage]:
        """Return those whose heartbeat still helps.

        One that comes too late would take the message from the replica that has it by now.
        """
        for message in self:
            if not message.ended and monotonic() - message.heartbeat_at < self._ack_wait_seconds:
                yield message

    @property
    def crowded(self) -> bool:
        """Whether so many messages wait in the consumer that it may stop delivering."""
        if len(self._given_back) < _CROWDED:
            return False
        now = monotonic()
        for key in [key for key, due in self._given_back.items() if due < now]:
            del self._given_back[key]
        return len(self._given_back) >= _CROWDED


class RecentlyHandled:
    """The last `limit` keys, 16 bytes each.

    Each subscriber has one and fills it, and hardly ever asks: a dict of the same keys would take
    three megabytes for 10,000 of them, this takes 160 kB.
    """

    _KEY = Struct(">Qq")

    def __init__(self, limit: int) -> None:
        self._keys = bytearray()
        self._end = limit * self._KEY.size
        self._next = 0

    def add(self, key: Key) -> None:
        """Remember a key, and forget the oldest if there are too many."""
        if self._next == len(self._keys):
            self._keys += self._KEY.pack(*key)
        else:
            self._KEY.pack_into(self._keys, self._next, *key)
        self._next = (self._next + self._KEY.size) % self._end

    def __contains__(self, key: Key) -> bool:
        """Tell whether a key is among the last ones; it looks through them all."""
        wanted = self._KEY.pack(*key)
        found = self._keys.find(wanted)
        while found >= 0 and found % self._KEY.size:  # the end of one key, and the begin of another
            found = self._keys.find(wanted, found + 1)
        return found >= 0


class InTurn:
    """Messages one by one, as they came."""

    def __init__(self) -> None:
        self._waiting: deque[InFlightMessage] = deque()

    def add(self, message: InFlightMessage) -> None:
        """Take a message in."""
        self._waiting.append(message)

    def __len__(self) -> int:
        """How many messages wait to begin."""
        return len(self._waiting)

    def take(self, *, at_once: bool) -> list[InFlightMessage]:
        """Return the next message; nothing if there is none."""
        del at_once
        return [self._waiting.popleft()] if self._waiting else []


class Batched:
    """Messages together: as soon as there are enough, or the first has waited long enough.

    Args:
        policy: how many, how long.
        ready: called when a batch became ready by waiting.
    """

    def __init__(self, policy: BatchPolicy, *, ready: Callable[[], None]) -> None:
        self._policy = policy
        self._ready = ready
        self._waiting: deque[InFlightMessage] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, message: InFlightMessage) -> None:
        """Take a message in."""
        self._waiting.append(message)

    def __len__(self) -> int:
        """How many messages wait to begin."""
        return len(self._waiting)

    def take(self, *, at_once: bool) -> list[InFlightMessage]:
        """Return the next batch; nothing if it is to wait for more, unless `at_once`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, size = self._waiting, self._policy.size
        if not waiting:
            return []
        loop = asyncio.get_running_loop()
        due = waiting[0].arrived_at + self._policy.wait_seconds
        if len(waiting) < size and loop.time() < due and not at_once:
            self._timer = loop.call_at(due, self._ready)
            return []
        return [waiting.popleft() for _ in range(min(size, len(waiting)))]
