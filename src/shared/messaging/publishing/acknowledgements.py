"""Acknowledgements on their way back from the server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict, cast

import nats.errors
from pydantic_core import from_json

from shared.errors import MessageBusError
from shared.messaging.connection.errors import bus_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.client import Client
    from nats.aio.msg import Msg


@dataclass(frozen=True, slots=True)
class PubAck:
    """The server's acknowledgement: stored in `stream` as `sequence`.

    `duplicate` says that a message of the same id was already there (inside the stream's dedupe
    window) and this one was not stored again.
    """

    stream: str
    sequence: int
    duplicate: bool = False


_PENDING: Final = PubAck("", 0)


class Call:
    """The outcomes of messages published together, and the one future that waits for them all.

    `outcomes` is complete when `done` is.
    """

    __slots__ = ("_left", "done", "outcomes")

    def __init__(self, count: int) -> None:
        self.outcomes: list[PubAck | MessageBusError] = [_PENDING] * count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left = count
        if not count:
            self.done.set_result(None)

    def settle(self, place: int, outcome: PubAck | MessageBusError) -> None:
        """Say what became of the message at `place`; what is said of it again is passed over."""
        if self.outcomes[place] is _PENDING:
            self.outcomes[place] = outcome
            self._left -= 1
            if not self._left and not self.done.done():
                self.done.set_result(None)

    @property
    def complete(self) -> bool:
        """Whether the outcome of each message is known; cancelling `done` does not make it so."""
        return not self._left

    def fail(self, start: int, error: MessageBusError) -> None:
        """Settle every message from `start` on with one error."""
        for place in range(start, len(self.outcomes)):
            self.settle(place, error)


class _Expected(NamedTuple):
    call: Call
    place: int
    subject: str
    sent_at: float
    connection: int


class _ApiError(TypedDict, total=False):
    description: str
    err_code: int
    code: int


class _AckBody(TypedDict, total=False):
    stream: str
    seq: int
    duplicate: bool
    error: _ApiError


class Acks:
    """The inbox all acknowledgements of one client come back to.

    Messages wait in the order in which they were sent, all for the same time: the first one's
    deadline is the next one, and one timer is enough.

    Args:
        client: through which they are sent.
        timeout_seconds: how long each is waited for.
        settled: called for each that is no longer waited for.
        silence: called when one was waited for in vain and nothing else came meanwhile.
    """

    def __init__(
        self,
        client: Client,
        *,
        timeout_seconds: float,
        settled: Callable[[], None],
        silence: Callable[[], None],
    ) -> None:
        self.client = client
        self.silent = False
        self._loop = asyncio.get_running_loop()
        self._timeout_seconds = timeout_seconds
        self._settled = settled
        self._silence = silence
        self._inbox = client.new_inbox()
        self._expected: dict[str, _Expected] = {}
        self._count = 0
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Listen for acknowledgements."""
        # Nothing is dropped by the client's own limits: no more come than the window lets out.
        await self.client.subscribe(f"{self._inbox}.*", cb=self._receive)

    @property
    def waiting(self) -> int:
        """How many acknowledgements are awaited."""
        return len(self._expected)

    def expect(self, call: Call, place: int, subject: str) -> str:
        """Wait for one more; return the subject it is to be sent to."""
        self._count += 1
        reply = f"{self._inbox}.{self._count}"
        now = self._loop.time()
        self._expected[reply] = _Expected(call, place, subject, now, self._connection)
        if self._timer is None:
            self._timer = self._loop.call_at(now + self._timeout_seconds, self._look)
        return reply

    def forget(self, call: Call) -> None:
        """Wait no longer for what is left of a call."""
        for reply in [r for r, expected in self._expected.items() if expected.call is call]:
            self._take(reply)

    def give_up_lost(self) -> None:
        """Stop waiting for acknowledgements that were lost with an earlier connection."""
        self.silent = False
        error = ConnectionResetError("the connection was lost meanwhile")
        for reply, expected in list(self._expected.items()):
            if expected.connection < self._connection or self.client.is_closed:
                self._give_up(reply, error)

    @property
    def _connection(self) -> int:
        return self.client.stats["reconnects"]

    def _take(self, reply: str) -> _Expected | None:
        expected = self._expected.pop(reply, None)
        if expected is not None:
            self._settled()
        return expected

    def _give_up(self, reply: str, error: Exception) -> None:
        expected = self._take(reply)
        if expected is not None:
            if not isinstance(error, MessageBusError):
                error = bus_error("publish", error, subject=expected.subject)
            expected.call.settle(expected.place, error)

    def _look(self) -> None:
        """Give up what has waited long enough, and come again for the next one."""
        self._timer = None
        for reply, expected in list(self._expected.items()):
            if expected.sent_at + self._timeout_seconds > self._loop.time():
                deadline = expected.sent_at + self._timeout_seconds
                self._timer = self._loop.call_at(deadline, self._look)
                break
            if self._heard_at < expected.sent_at and not self.silent:
                self.silent = True
                self._silence()
            self._give_up(reply, TimeoutError())

    async def _receive(self, message: Msg) -> None:
        self._heard_at = self._loop.time()
        self.silent = False
        expected = self._take(message.subject)
        if expected is not None:
            expected.call.settle(expected.place, _read(message, expected.subject))


def _read(message: Msg, subject: str) -> PubAck | MessageBusError:
    if message.headers and message.headers.get("Status") == "503":
        cause = nats.errors.NoRespondersError()
        error = bus_error("publish", cause, subject=subject)
        error.__cause__ = cause
        return error
    try:
        return _answer(cast("_AckBody", from_json(message.data)), subject)
    except (KeyError, ValueError):
        # Such as the empty answer to a part of a batch, by headers the sender put there.
        return MessageBusError(
            f"publish of {subject} failed: the server's answer is not an acknowledgement",
            operation="publish",
            subject=subject,
        )


def _answer(body: _AckBody, subject: str) -> PubAck | MessageBusError:
    if refusal := body.get("error"):
        return MessageBusError(
            f"publish of {subject} was refused: {refusal.get('description')}",
            operation="publish",
            subject=subject,
            retryable=refusal.get("code") != 400,  # noqa: PLR2004 - the request is at fault
            details={"error_code": refusal.get("err_code")},
        )
    return PubAck(body["stream"], body["seq"], body.get("duplicate", False))
