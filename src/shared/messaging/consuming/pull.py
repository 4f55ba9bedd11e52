"""A standing pull on a durable consumer, as ADR-37 describes it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic as _now  # the clock of the event loop
from typing import TYPE_CHECKING, Self

import nats.errors
from pydantic_core import to_json

from shared.errors import MessageBusError
from shared.messaging.connection.client import LeanClient
from shared.messaging.connection.errors import bus_errors

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription as ClientSubscription

# A request stands for 30 s and the server sends a heartbeat at half of it; two that are missed
# mean that the request is lost.
EXPIRES_SECONDS = 30.0
_BEATS = 2
_MIN_SILENCE_SECONDS = 10.0

# A server cuts a client off that has more than `max_pending` waiting for it (64 MB by default), and
# a busy event loop lets all that was asked for wait. Requests overlap, so that up to three times
# as much may be on its way.
MAX_BYTES = 512 * 1024

# The one priority group of a consumer whose messages go to one subscriber at a time (ADR-42).
GROUP = "order"
PIN = "Nats-Pin-Id"

_CLOSE_SECONDS = 2.0

_HEARTBEAT = "100"
_NO_MESSAGES = "404"
_EXPIRED = "408"
_CONFLICT = "409"
_NOT_PINNED = "423"
# The conflicts that end one request and say nothing about the consumer.
_TOO_LARGE = "message size exceeds maxbytes"
_REQUEST_ENDED = ("batch completed", _TOO_LARGE)


class PullLostError(MessageBusError):
    """The standing requests are gone, or may be: a new pull has to take over."""


class Pull:
    """An inbox and the requests whose messages arrive there.

    Messages are handed to `receive` one after the other, also while the pull is being left.
    `outstanding` is how many messages are asked for and not here yet. Requests are bounded in bytes
    as well: a message that is larger than the bound is asked for by itself.

    Of a `pinned` consumer the server gives messages to one of its pulls only, for as long as that
    one asks again in time; `pin` is the name the server gave to this one, None while another
    has it.
    """

    def __init__(
        self,
        client: Client,
        stream: str,
        durable: str,
        *,
        receive: Callable[[Msg], None],
        expires_seconds: float = EXPIRES_SECONDS,
        pinned: bool = False,
    ) -> None:
        self.outstanding = 0
        self.heard = False
        self.pin: str | None = None
        self._pinned = pinned
        self._expires_seconds = expires_seconds
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._stream = stream
        self._receive = receive
        self._inbox = client.new_inbox()
        self._subscription: ClientSubscription | None = None
        self._lost: PullLostError | None = None
        self._last_heard = 0.0
        self._changed = asyncio.Event()
        self._came = False
        self._too_large = False

    async def __aenter__(self) -> Self:
        with bus_errors("subscribe", stream=self._stream):
            # No more arrives than was asked for, so none is dropped for being too many at once.
            self._subscription = await self._client.subscribe(
                self._inbox, cb=self._arrived, pending_msgs_limit=0, pending_bytes_limit=0
            )
        if isinstance(self._client, LeanClient):
            self._client.hand_directly(self._subscription, self._take)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Withdraw the requests; what the server had sent already still arrives."""
        if self._subscription is None:
            return
        with suppress(nats.errors.Error, OSError, TimeoutError):
            if self._lost is None and self._client.is_connected:
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._subscription.drain()  # type: ignore[no-untyped-call]
            else:
                # Draining waits for a pong, and nats-py dies of one that comes too late.
                await self._subscription.unsubscribe()
        if isinstance(self._client, LeanClient):
            self._client.hand_no_more(self._subscription)

    def wake(self) -> None:
        """End a `wait` early."""
        self._changed.set()

    def lose(self, reason: str) -> None:
        """Make `wait` raise `PullLostError`."""
        self._lost = PullLostError(reason, operation="pull", stream=self._stream)
        self._changed.set()

    async def request(self, count: int) -> None:
        """Ask for `count` more messages, or for a large one alone.

        Raises:
            MessageBusError: The connection does not take it.
        """
        request: dict[str, object] = {
            "expires": int(self._expires_seconds * 1e9),
            "idle_heartbeat": int(self._expires_seconds / _BEATS * 1e9),
        }
        if self._too_large:
            if self.outstanding:
                return
            count = 1
        else:
            request["max_bytes"] = MAX_BYTES // 2 if self.outstanding else MAX_BYTES
        request["batch"] = count
        if not self.outstanding:
            self._last_heard = _now()
            self._came = False
        self.outstanding += count
        if self._pinned:
            request["group"] = GROUP
            if self.pin:
                request["id"] = self.pin
        with bus_errors("pull", stream=self._stream):
            await self._client.publish(self._subject, to_json(request), reply=self._inbox)

    @property
    def _silence_seconds(self) -> float:
        # A short-lived request gets time to be heard of on a slow wire, too.
        return max(self._expires_seconds, _MIN_SILENCE_SECONDS)

    async def wait(self) -> None:
        """Wait until a request ended or `wake` is called.

        Raises:
            PullLostError: The consumer is gone, the connection changed, or the server is silent.
        """
        while not self._changed.is_set() and self._lost is None:
            silent_at = self._last_heard + self._silence_seconds if self.outstanding else None
            if silent_at is not None and _now() >= silent_at:
                self.lose("no heartbeat from the server")
                break
            with suppress(TimeoutError):
                async with asyncio.timeout_at(silent_at):
                    await self._changed.wait()
        self._changed.clear()
        if self._lost is not None:
            raise self._lost

    async def _arrived(self, message: Msg) -> None:
        self._take(message)

    def _take(self, message: Msg) -> None:
        self._last_heard = _now()
        if message.reply.startswith("$JS.ACK."):
            self.heard = self._came = True
            self.outstanding = max(self.outstanding - 1, 0)
            self._too_large = self._too_large and len(message.data) > MAX_BYTES
            if self._pinned and message.headers:
                self.pin = message.headers.get(PIN, self.pin)
            self._receive(message)
        else:
            self._told(message.headers or {})
        if not self.outstanding:
            self._changed.set()

    def _told(self, headers: dict[str, str]) -> None:
        status, description = headers.get("Status"), headers.get("Description", "")
        ended = status in {_NO_MESSAGES, _EXPIRED} or (
            status == _CONFLICT and description.lower().startswith(_REQUEST_ENDED)
        )
        if ended:
            self.heard = True
            unused = int(headers.get("Nats-Pending-Messages", self.outstanding))
            self.outstanding = max(self.outstanding - unused, 0)
            if not (self.outstanding or self._came) and description.lower().startswith(_TOO_LARGE):
                self._too_large = True
        elif status == _HEARTBEAT:
            self.heard = True
        elif status == _NOT_PINNED:
            # Another subscriber has the pin now. We stay in line, without the name we had.
            self.heard = True
            self.pin = None
            self.outstanding = 0
        else:
            self.lose(f"the server ended the pull: {description or status}")
