"""Sending: what the window lets out goes to the client, and its acknowledgement is awaited.

Here are the `Sender`; `Call`, the outcomes of what is published together; `Acks`, the inbox of the
acknowledgements; and `Outage`, where all wait for the connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import nats.errors

from shared.errors import MessageBusError
from shared.messaging.connection.client import write
from shared.messaging.connection.errors import bus_error, bus_errors
from shared.messaging.publishing import batches
from shared.messaging.publishing.claim_check import ClaimCheck
from shared.messaging.publishing.wire import (
    CHUNK_BYTES,
    PubAck,
    check_subject,
    command,
    header_block,
    read_ack,
)
from shared.metrics import messages_published_total

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from prometheus_client import Counter as Metric

    from shared.messaging.connection.connection import Connection
    from shared.messaging.publishing.wire import OutgoingMessage

_logger = logging.getLogger(__name__)

# The client tells only its maker of reconnections, and a bus may go around another's client.
_LOOK_SECONDS = 0.02


class Sender:
    """The window and the acknowledgements of a `Publisher`, which see for the arguments."""

    def __init__(
        self,
        bus: Connection,
        *,
        window: int,
        timeout_seconds: float,
        headroom_bytes: int,
        claim_check_bytes: int | None,
    ) -> None:
        self._bus = bus
        self._timeout_seconds = timeout_seconds
        self._headroom_bytes = headroom_bytes
        self._window = asyncio.Semaphore(window)
        self._claims = (
            None if claim_check_bytes is None else ClaimCheck(bus, above_bytes=claim_check_bytes)
        )
        self._outage = Outage(bus, wait_seconds=timeout_seconds)
        self._acks: Acks | None = None
        self._opening = asyncio.Lock()
        self._suspecting: asyncio.Task[None] | None = None
        self._counters: dict[tuple[str, str], Metric] = {}

    async def send(self, messages: Sequence[OutgoingMessage]) -> list[PubAck | MessageBusError]:
        """Send the messages in their order, many in flight, and return each one's outcome."""
        call = Call(len(messages))
        place = 0
        try:
            if self._claims is not None:
                messages = await self._left(self._claims, messages)
            while place < len(messages):
                acks = await self._let_out()
                commands, count, place = await self._fill(acks, call, messages, place)
                await self._write(acks, commands, messages=count)
            await call.done
        except MessageBusError as error:
            # The moment is to blame, which is the same for all that were not sent.
            call.fail(place, error)
            await call.done
        finally:
            if call.left and self._acks is not None:
                self._acks.forget(call)
        self._count(call.outcomes, messages)
        return call.outcomes

    async def _fill(
        self, acks: Acks, call: Call, messages: Sequence[OutgoingMessage], place: int
    ) -> tuple[list[bytes], int, int]:
        """Return what can be sent at once, from `place` on, how many messages, and the next place.

        The window has let the first one out. Nothing here waits, so the connection is as it was.
        """
        commands: list[bytes] = []
        room, count = CHUNK_BYTES, 0
        while True:
            message = messages[place]
            try:
                block = self._headers(message)
                reply = acks.expect(call, place, message.subject)
                commands += command(message.subject, reply, block, message.body)
                count += 1
            except MessageBusError as error:
                call.settle(place, error)
                self._window.release()
            place += 1
            room -= len(message.body)
            if place == len(messages) or room <= 0 or acks.silent or self._window.locked():
                return commands, count, place
            await self._window.acquire()

    async def send_batch(
        self, messages: Sequence[OutgoingMessage]
    ) -> list[PubAck | MessageBusError]:
        """Send the messages, all to one stream, as one batch, and return each one's outcome."""
        count = len(messages)
        if count == 1:
            return await self.send(messages)
        call = Call(1)
        try:
            if self._claims is not None:
                messages = await self._left(self._claims, messages)
            await self._send_batch(call, messages)
            await call.done
            (commit,) = call.outcomes
        except MessageBusError as error:
            commit = error
        finally:
            if call.left and self._acks is not None:
                self._acks.forget(call)
        if isinstance(commit, MessageBusError):
            return [batches.whole(commit)] * count
        outcomes = batches.acks_of(commit, count)
        self._count(outcomes, messages)
        return outcomes

    async def _send_batch(self, call: Call, messages: Sequence[OutgoingMessage]) -> None:
        """Send a batch; only its last message, which commits it, is answered."""
        client = await self._outage.connected()
        if reason := batches.unsupported(client):
            raise batches.refused(reason)
        numbered = zip(messages, batches.headers(len(messages)), strict=True)
        try:
            blocks = [self._headers(message, batch) for message, batch in numbered]
        except MessageBusError as error:  # nothing is sent yet
            raise batches.refused(str(error)) from error
        acks = await self._let_out()
        try:
            commands: list[bytes] = []
            room, count = CHUNK_BYTES, 0
            for message, block in zip(messages[:-1], blocks, strict=False):
                commands += command(message.subject, "", block, message.body)
                room, count = room - len(message.body), count + 1
                if room <= 0:
                    await self._write(acks, commands, messages=count)
                    commands, room, count = [], CHUNK_BYTES, 0
            last = messages[-1]
            reply = acks.expect(call, 0, last.subject)
        except BaseException:
            self._window.release()
            raise
        commands += command(last.subject, reply, blocks[-1], last.body)
        await self._write(acks, commands, messages=count + 1)

    async def _left(
        self, claims: ClaimCheck, messages: Sequence[OutgoingMessage]
    ) -> Sequence[OutgoingMessage]:
        """Return the messages with their large bodies left at the object store."""
        await self._outage.connected()
        return [await claims.leave(message) for message in messages]

    def _headers(self, message: OutgoingMessage, batch: Mapping[str, str] | None = None) -> bytes:
        subject = message.subject
        try:
            check_subject(subject)
            block = header_block(message.message_id, message.headers, batch)
        except nats.errors.Error as error:
            raise bus_error("publish", error, subject=subject) from error
        size = len(message.body) + len(block)
        limit = self._bus.client.max_payload - self._headroom_bytes
        if size > limit:
            raise MessageBusError(
                f"message to {subject} is too large: {size} bytes, at most {limit}",
                operation="publish",
                subject=subject,
                retryable=False,
                details={"size_bytes": size, "limit_bytes": limit},
            )
        return block

    async def _write(self, acks: Acks, commands: list[bytes], *, messages: int) -> None:
        try:
            await write(acks.client, commands, messages=messages)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise bus_error("publish", error) from error

    async def _let_out(self) -> Acks:
        """Wait until the window lets one more message out; return where to expect its answer.

        Raises:
            MessageBusError: There is no connection, or the server does not answer.
        """
        await self._window.acquire()
        try:
            client = await self._outage.connected()
            acks = self._acks
            if acks is None or acks.client is not client:
                acks = await self._open(client)
        except BaseException:
            self._window.release()
            raise
        if acks.silent and acks.waiting:
            self._window.release()
            raise MessageBusError(
                "publish failed: NATS does not answer; it is tried with one message at a time",
                operation="publish",
            )
        return acks

    async def _open(self, client: Client) -> Acks:
        async with self._opening:
            if self._acks is None or self._acks.client is not client:
                acks = Acks(
                    client,
                    timeout_seconds=self._timeout_seconds,
                    settled=self._window.release,
                    silence=self._on_silence,
                )
                with bus_errors("publish"):
                    await acks.open()
                if self._acks is None:
                    self._bus.on_connection(self._on_connection)
                self._acks = acks
        return self._acks

    def _on_connection(self) -> None:
        if self._acks is not None:
            self._acks.give_up_lost()

    def _on_silence(self) -> None:
        if self._suspecting is None:
            self._suspecting = asyncio.create_task(self._bus.suspect())
            self._suspecting.add_done_callback(self._suspected)

    def _suspected(self, task: asyncio.Task[None]) -> None:
        self._suspecting = None
        if not task.cancelled() and (error := task.exception()):
            _logger.warning("NATS does not answer, and connecting anew failed", exc_info=error)

    def _count(
        self,
        outcomes: Sequence[PubAck | MessageBusError],
        messages: Sequence[OutgoingMessage],
    ) -> None:
        stored: Counter[tuple[str, str]] = Counter()
        for message, outcome in zip(messages, outcomes, strict=True):
            if isinstance(outcome, PubAck):
                stored[outcome.stream, message.subject] += 1
        for labels, count in stored.items():
            counter = self._counters.get(labels)
            if counter is None:
                counter = messages_published_total.labels(self._bus.name, *labels)
                self._counters[labels] = counter
            counter.inc(count)


_PENDING: Final = PubAck("", 0)


class Call:
    """The outcomes of messages published together, and the one future that waits for them all.

    `left` counts those whose outcome is not known; cancelling `done` changes nothing in that.
    """

    __slots__ = ("done", "left", "outcomes")

    def __init__(self, count: int) -> None:
        self.outcomes: list[PubAck | MessageBusError] = [_PENDING] * count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = count
        if not count:
            self.done.set_result(None)

    def settle(self, place: int, outcome: PubAck | MessageBusError) -> None:
        """Say what became of the message at `place`; what is said of it again is passed over."""
        if self.outcomes[place] is _PENDING:
            self.outcomes[place] = outcome
            self.left -= 1
            if not self.left and not self.done.done():
                self.done.set_result(None)

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
        self._expected[reply] = _Expected(
            call, place, subject, now, self.client.stats["reconnects"]
        )
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
        connection = self.client.stats["reconnects"]
        for reply, expected in list(self._expected.items()):
            if expected.connection < connection or self.client.is_closed:
                self._give_up(reply, error)

    def _take(self, reply: str) -> _Expected | None:
        expected = self._expected.pop(reply, None)
        if expected is not None:
            self._settled()
        return expected

    def _give_up(self, reply: str, error: Exception) -> None:
        expected = self._take(reply)
        if expected is not None:
            lost = bus_error("publish", error, subject=expected.subject)
            expected.call.settle(expected.place, lost)

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
            expected.call.settle(expected.place, read_ack(message, expected.subject))


class Outage:
    """One outage at a time: who meets it waits for its end, but not for longer than its patience.

    Args:
        bus: whose connection it is.
        wait_seconds: counted from when the first met the outage, for all of them.
    """

    def __init__(self, bus: Connection, *, wait_seconds: float) -> None:
        self._bus = bus
        self._wait_seconds = wait_seconds
        self._which: tuple[Client, int] | None = None
        self._until = 0.0
        self._over: asyncio.Future[None] | None = None

    async def connected(self) -> Client:
        """Return the client once it is connected.

        Raises:
            MessageBusError: It is not, for longer than is waited; or never was, or never will be.
                Retryable all the same: another process may do it.
        """
        while not (client := self._bus.client).is_connected:
            loop = asyncio.get_running_loop()
            which = (client, client.stats["reconnects"])
            if which != self._which and self._over is None:
                self._which = which
                self._until = loop.time() + self._wait_seconds
            if self._bus.closed or loop.time() >= self._until:
                # Whoever tries again and again must not keep the loop from connecting.
                await asyncio.sleep(0)
                raise self._error()
            if self._over is None:
                self._over = loop.create_future()
                self._look()
            # Who gives up must not end the others' wait.
            await asyncio.shield(self._over)
        return client

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        over = self._bus.connected or self._bus.closed or loop.time() >= self._until
        if not over:
            loop.call_later(_LOOK_SECONDS, self._look)
        elif self._over is not None:
            self._over.set_result(None)
            self._over = None

    def _error(self) -> MessageBusError:
        if self._bus.closed:
            reason = "the message bus is closed"
        else:
            reason = f"no connection to NATS for {self._wait_seconds:g} s and longer"
        return MessageBusError(f"publish failed: {reason}", operation="publish")
