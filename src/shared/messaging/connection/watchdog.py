"""Heartbeats for messages whose handler blocks the event loop, from a thread beside it.

While a handler blocks (`time.sleep`, a driver that is not async, a long computation), the loop
sends no heartbeats, and the server would give its messages to another replica. The client of the
bus belongs to the loop and is not safe in another thread, so the thread takes a connection of its
own, with the same servers and credentials, for as long as the loop is blocked.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Protocol

import nats.errors
from nats.aio.client import Client

from shared.messaging.connection.client import connect_alike
from shared.metrics import subscriber_blocked_seconds_total

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

_logger = logging.getLogger(__name__)

IN_PROGRESS = b"+WPI"  # ADR-15: the message is worked on, and `ack_wait` begins anew

# How often a heartbeat is due within `ack_wait`; a look whether the loop still sends them; and
# from which share of `ack_wait` on a heartbeat is late.
HEARTBEATS = 3
_LOOKS = 6
_LATE = 0.5


class Kept(Protocol):
    """A message that the server waits for us to acknowledge."""

    reply: str
    heartbeat_at: float


class Watched:
    """A subscriber, as the watchdog sees it.

    Args:
        service: label of the metric.
        durable: whose handler it is.
        ack_wait_seconds: how long the server waits for a heartbeat.
        messages: what is in flight and still helped by a heartbeat; called in the thread.
        tasks: those that run its handlers.

    Attributes:
        beat_at: when the loop last sent its heartbeats, on the monotonic clock; kept by the loop.
    """

    def __init__(
        self,
        service: str,
        durable: str,
        *,
        ack_wait_seconds: float,
        messages: Callable[[], Iterable[Kept]],
        tasks: Collection[asyncio.Task[None]],
    ) -> None:
        self.durable = durable
        self.ack_wait_seconds = ack_wait_seconds
        self.messages = messages
        self.tasks = tasks
        self.beat_at = monotonic()
        self.blocked_seconds = subscriber_blocked_seconds_total.labels(service, durable)

    @property
    def late(self) -> bool:
        """Whether the loop should have sent heartbeats by now."""
        return monotonic() - self.beat_at > self.ack_wait_seconds * _LATE


class Watchdog:
    """Notices that the event loop is blocked, keeps its messages alive, and tells who blocks it.

    Its one thread, for all subscribers of a connection, runs while any of them does. It mostly
    sleeps: it looks six times per the shortest `ack_wait`. What holds the interpreter's lock all
    the while (an extension that does not release it) keeps this thread from working as well.

    Args:
        client: returns the client in use, whose servers and credentials are taken.
    """

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._watched: list[Watched] = []
        self._stop = threading.Event()

    def watch(self, watched: Watched) -> None:
        """Watch the loop this is called in, for one more subscriber."""
        watched.beat_at = monotonic()
        self._watched.append(watched)
        if len(self._watched) == 1:
            self._stop = threading.Event()
            loop, thread = asyncio.get_running_loop(), threading.get_ident()
            threading.Thread(
                target=self._run, args=(self._stop, loop, thread), name="watchdog", daemon=True
            ).start()

    def leave(self, watched: Watched) -> None:
        """Watch no longer for a subscriber; the thread ends with the last one."""
        self._watched.remove(watched)
        if not self._watched:
            self._stop.set()

    def _seconds(self, parts: int) -> float:
        """Return the shortest `ack_wait`, divided."""
        return min((w.ack_wait_seconds for w in self._watched), default=1.0) / parts

    # -- in the thread -----------------------------------------------------------------------

    def _run(self, stop: threading.Event, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        while not stop.wait(self._seconds(_LOOKS)) and not loop.is_closed():
            if self._is_blocked(loop):
                blocking = self._find(loop)
                began = min((watched.beat_at for watched in self._watched), default=0.0)
                _logger.error(
                    "%s: the event loop is blocked at %s; its messages are kept from other "
                    "replicas meanwhile. Let what takes long be awaited, or make the handler a "
                    "plain def, which runs in a thread",
                    blocking.durable if blocking else "no handler",
                    _place(thread),
                )
                asyncio.run(self._stand_in(stop, loop))
                seconds = monotonic() - began
                name = blocking.durable if blocking else "no handler"
                if blocking is not None:
                    blocking.blocked_seconds.inc(seconds)
                _logger.error(
                    "%s: blocked the event loop for about %.1f s",
                    name,
                    seconds,
                    extra={"subscriber": name, "blocked_seconds": round(seconds, 3)},
                )

    def _is_blocked(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether it runs, and sends no heartbeats: in one that ended nobody has a message."""
        return loop.is_running() and any(watched.late for watched in list(self._watched))

    def _find(self, loop: asyncio.AbstractEventLoop) -> Watched | None:
        """Return whose handler runs now; None if it is something else."""
        task = asyncio.current_task(loop)
        return next((w for w in list(self._watched) if task in w.tasks), None)

    async def _stand_in(self, stop: threading.Event, loop: asyncio.AbstractEventLoop) -> None:
        """Send heartbeats until the loop does so again."""
        client: Client | None = None
        while not stop.is_set() and self._is_blocked(loop):
            try:
                if client is None:
                    client = await _connected_as(self._client())
                await self._send(client)
            except Exception as error:  # noqa: BLE001 - the next one may get through
                _logger.warning("heartbeats for a blocked event loop failed: %s", error)
                await _close(client)
                client = None
            await asyncio.sleep(self._seconds(_LOOKS))
        await _close(client)

    async def _send(self, client: Client) -> None:
        for watched in list(self._watched):
            due = watched.ack_wait_seconds / HEARTBEATS
            for message in watched.messages():
                if monotonic() - message.heartbeat_at >= due:
                    await client.publish(message.reply, IN_PROGRESS)
                    message.heartbeat_at = monotonic()
        await client.flush(timeout=5)


async def _close(client: Client | None) -> None:
    if client is not None:
        with suppress(nats.errors.Error, OSError, TimeoutError):
            await client.close()


def _place(thread: int) -> str:
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - its documented name
    if frame is None:
        return "an unknown place"
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_qualname}"


async def _connected_as(client: Client) -> Client:
    """Return a connection of the running loop to where `client` is connected, as who it is."""
    other = Client()
    await connect_alike(other, client, name=f"{client.options['name']} watchdog")
    return other
