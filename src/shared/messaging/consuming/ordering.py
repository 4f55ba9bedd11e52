"""Order per key, over retries and over replicas.

Within this process, `Lanes` keep it. Among replicas, the server gives all messages to one of them,
the one that has the pin (ADR-42). When the pin comes to us, another replica may have died, or lost
its connection, with messages in flight. They come to us too, but only after `ack_wait`, and later
messages of their keys may come before. So nothing is begun until all that is not acknowledged is
here: as many messages as the server says are pending. A replica that lost the pin gives back what
it has not begun, and finishes what it has; for that we wait as well. The server numbers what it
gives out: a number that is left out is of a message that is late, or lost, and is waited for too.

The number alone would deceive. A replica that froze may acknowledge, when it goes on, what came to
us since: that is pending no more, is in flight with us all the same, and stands in for a message
that is not. So what another had before us is given back and comes again if it is pending; and that
is done until nothing was acknowledged meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import insort
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import MessageBusError
from shared.messaging.connection.errors import bus_errors
from shared.messaging.consuming.in_flight import MessageState
from shared.messaging.consuming.retry import RetryPolicy
from shared.messaging.publishing.claim_check import CLAIM, resolve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from shared.messaging.connection.bus import Bus
    from shared.messaging.consuming.delivery import Delivery
    from shared.messaging.consuming.in_flight import InFlight, InFlightMessage, Key
    from shared.messaging.consuming.subscription import Subscription

_logger = logging.getLogger(__name__)

# How soon to look again whether everything pending is here.
_LOOK_AGAIN = RetryPolicy(first_delay_seconds=0.01, max_delay_seconds=0.5)

# Under a steady flow of acknowledgements of others, so often it is made sure of.
_MOST_CHECKS = 10

# A message given back comes again at once; after so many times `ack_wait` it is looked for.
_LOST_AFTER = 2.0


@dataclass(frozen=True, slots=True)
class _Look:
    """What the server said of its consumer.

    ``pending`` are unacknowledged, all of those up to ``floor`` in the stream are acknowledged, and
    ``number`` is of the last delivery.
    """

    pending: int
    floor: int
    number: int


class Lanes:
    """The messages that are not done, by the key of their order, each lane in stream order.

    Only the head of a lane may be handled. A message stays in its lane while it is away, waiting to
    be delivered again, and so keeps the later ones back; it leaves when it is done.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, list[Key]] = {}

    def enter(self, lane: str, key: Key) -> None:
        """Take a message in at its place; one that is in already stays where it is."""
        keys = self._lanes.setdefault(lane, [])
        if not keys or keys[-1] < key:
            keys.append(key)
        elif key not in keys:
            insort(keys, key)

    def leave(self, lane: str, key: Key) -> Key | None:
        """Let a message go, and return who is the head of its lane now."""
        keys = self._lanes.get(lane, [])
        if key in keys:
            keys.remove(key)
        if keys:
            return keys[0]
        self._lanes.pop(lane, None)
        return None

    def is_head(self, lane: str, key: Key) -> bool:
        """Tell whether a message is the oldest of its lane."""
        return self._lanes[lane][0] == key

    def heads(self) -> Iterator[Key]:
        """Return the oldest message of each lane."""
        return (keys[0] for keys in list(self._lanes.values()))


class InOrder:
    """Messages of one key one after the other, as the stream has them; others at the same time.

    Args:
        bus: asked what is pending.
        subscription: whose.
        order_by: the key of a message, None for a message that has none.
        in_flight: all messages that are; read here, and not changed.
        ready: called when messages became ready by waiting.
        give_back: gives messages back that are not begun, and forgets them.
    """

    def __init__(
        self,
        bus: Bus,
        subscription: Subscription,
        order_by: Callable[[Delivery], str | None],
        *,
        in_flight: InFlight,
        ready: Callable[[], None],
        give_back: Callable[[list[InFlightMessage]], Awaitable[None]],
    ) -> None:
        self.pin: str | None = None
        self._bus = bus
        self._subscription = subscription
        self._order_by = order_by
        self._in_flight = in_flight
        self._on_ready = ready
        self._give_back = give_back
        self._lanes = Lanes()
        self._ready: deque[InFlightMessage] = deque()
        self._away: dict[Key, tuple[str | None, float]] = {}
        self._unread: deque[InFlightMessage] = deque()
        self._reading: asyncio.Task[None] | None = None
        self._number: int | None = None
        self._new: list[int] = []
        self._gathered = True
        self._gathers = 0
        self._gathering: asyncio.Task[None] | None = None

    def add(self, message: InFlightMessage) -> None:
        """Take a message in at its place.

        Whose body lies elsewhere has a key that is not known before it is collected: what came
        after it waits for that, since it may be of the same key.
        """
        self._away.pop(message.key, None)
        if self._unread or CLAIM in message.headers:
            self._unread.append(message)
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read())
            return
        self._place(message, message)

    def _place(self, message: InFlightMessage, delivery: Delivery) -> None:
        try:
            message.lane = self._order_by(delivery)
        except Exception as error:  # noqa: BLE001 - whatever it is, it decides the message's fate
            message.trouble = error
        self._enter(message)

    def _enter(self, message: InFlightMessage) -> None:
        if message.lane is None:
            self._ready.append(message)
            return
        self._lanes.enter(message.lane, message.key)
        if self._gathered and self._lanes.is_head(message.lane, message.key):
            self._ready.append(message)

    async def _read(self) -> None:
        """Find out the keys of messages whose bodies lie elsewhere, and let the rest follow.

        The body is not kept: as many may be ahead as `prefetch` says, each of them large.
        """
        while self._unread:
            message = self._unread[0]
            try:
                delivery = await resolve(self._bus, message)
            except Exception as error:  # noqa: BLE001 - as of a key that cannot be told
                if isinstance(error, MessageBusError) and error.retryable:
                    _logger.warning("%s; its key is not known yet", error, extra=message.log_fields)
                    await asyncio.sleep(_LOOK_AGAIN.max_delay_seconds)
                    continue
                message.trouble = error
                delivery = None
            if not self._unread or self._unread[0] is not message:
                continue  # all was given back meanwhile
            self._unread.popleft()
            if delivery is None:
                self._enter(message)
            else:
                self._place(message, delivery)
            self._on_ready()

    def __len__(self) -> int:
        """How many messages may begin."""
        return len(self._ready)

    def take(self, *, at_once: bool) -> list[InFlightMessage]:
        """Return the next message that may begin; nothing if there is none."""
        del at_once
        while self._ready:
            message = self._ready.popleft()
            # It may have been given back meanwhile, or something older of its key came after it.
            if self._may_begin(message):
                return [message]
        return []

    def done(self, message: InFlightMessage, *, over: bool) -> None:
        """Let the next one of its key go; unless the message comes again, then that one waits."""
        if not over:
            self._away[message.key] = (message.lane, _now())
        elif message.lane is not None:
            self._leave_lane(message.lane, message.key)

    def drop(self, key: Key) -> None:
        """Let a message go that was away and needs no handling any more."""
        lane, _ = self._away.pop(key, (None, 0))
        if lane is not None:
            self._leave_lane(lane, key)
            self._on_ready()

    def leave(self, *, pinned: bool) -> list[InFlightMessage]:
        """Return what is not begun, to be given back; begin nothing before a pin comes to us.

        Where there are no pins, the server gives one message at a time, and nothing is waited for.
        """
        self.pin = None
        self._number = None
        self._gathered = not pinned
        self._forget_away()
        unbegun = [message for message in self._in_flight if message.state is MessageState.WAITING]
        for message in unbegun:
            if message.lane is not None:
                self._lanes.leave(message.lane, message.key)
        self._ready.clear()
        self._unread.clear()
        return unbegun

    def came(self, number: int, *, first: bool, pin: str | None) -> None:
        """Note a delivery: gather first if its pin is a new one, or one before it is not here.

        Args:
            number: the delivery's, among all of the consumer.
            first: whether its message was never delivered before.
            pin: the name under which the server gives us messages.
        """
        late = self._number is not None and number > self._number + 1
        self._number = max(number, self._number or 0)
        if pin is not None and (pin != self.pin or late):
            self.pin = pin
            self._gather()
        if first and not self._gathered:
            self._new.append(number)

    def look_for_lost(self) -> None:
        """Gather anew if a message that should have come again did not: it may be gone for good."""
        longest = _LOST_AFTER * self._subscription.ack_wait_seconds + 1
        if any(_now() - since > longest for _, since in self._away.values()):
            _logger.warning("%s: a message did not come again", self._subscription.durable)
            self._gather()

    def close(self) -> None:
        """Begin nothing more."""
        self._gathered = False
        self._ready.clear()
        self._unread.clear()
        for task in (self._gathering, self._reading):
            if task is not None:
                task.cancel()

    def _may_begin(self, message: InFlightMessage) -> bool:
        if message.state is not MessageState.WAITING:
            return False
        if message.lane is None:
            return True
        return self._gathered and self._lanes.is_head(message.lane, message.key)

    def _leave_lane(self, lane: str, key: Key) -> None:
        head = self._lanes.leave(lane, key)
        if (
            head is not None
            and (message := self._in_flight.get(head)) is not None
            and self._may_begin(message)
        ):
            self._ready.append(message)

    def _forget_away(self) -> None:
        for key, (lane, _) in self._away.items():
            if lane is not None:
                self._lanes.leave(lane, key)
        self._away.clear()

    def _gather(self) -> None:
        self._gathered = False
        self._gathers += 1
        # What we gave back ourselves is pending as well: it is waited for like the rest.
        self._forget_away()
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._wait_for_all())

    async def _wait_for_all(self) -> None:
        looks = checks = 0
        checked: tuple[int, _Look] | None = None
        while True:
            gathers = self._gathers
            look = await self._look()
            # What the server said before it was asked for anew tells nothing.
            if look and self._are_here(look) and not self._unread and gathers == self._gathers:
                doubtful = [message for message in self._in_flight if _is_doubtful(message)]
                if (
                    not doubtful
                    or checks == _MOST_CHECKS
                    or (checked and checked[0] == gathers and not self._acked(checked[1], look))
                ):
                    break
                checked = gathers, look
                checks += 1
                await self._ask_again_for(doubtful)
            else:
                looks += 1
            await asyncio.sleep(_LOOK_AGAIN.delay(max(looks, 1)))
        self._gathered = True
        self._new.clear()
        for key in self._lanes.heads():
            if (message := self._in_flight.get(key)) is not None and self._may_begin(message):
                self._ready.append(message)
        self._on_ready()

    async def _look(self) -> _Look | None:
        """Ask the server; None if it does not answer."""
        subscription = self._subscription
        try:
            with bus_errors("look up consumer", stream=subscription.stream):
                info = await self._bus.js.consumer_info(
                    subscription.stream or "", subscription.durable
                )
        except MessageBusError:
            return None
        return _Look(
            info.num_ack_pending or 0,
            0 if info.ack_floor is None else info.ack_floor.stream_seq,
            0 if info.delivered is None else info.delivered.consumer_seq,
        )

    def _are_here(self, look: _Look) -> bool:
        """Tell whether as many are here as are pending."""
        # What is acknowledged elsewhere is pending no more; and what came
        # since was not counted.
        ours = sum(
            not message.ended and message.key[0] > look.floor and message.number <= look.number
            for message in self._in_flight
        )
        return look.pending <= ours + len(self._away)

    def _acked(self, before: _Look, now: _Look) -> int:
        """Return how many were acknowledged between two looks, by whomever."""
        new = sum(before.number < number <= now.number for number in self._new)
        return before.pending + new - now.pending

    async def _ask_again_for(self, doubtful: list[InFlightMessage]) -> None:
        for message in doubtful:
            if message.lane is not None:
                self._lanes.leave(message.lane, message.key)
        await self._give_back(doubtful)


def _is_doubtful(message: InFlightMessage) -> bool:
    """Tell whether another replica had a message before us, and may acknowledge it yet."""
    before = message.attempt - message.carried > 1
    return before and message.lane is not None and message.state is MessageState.WAITING


def _now() -> float:
    return asyncio.get_running_loop().time()
