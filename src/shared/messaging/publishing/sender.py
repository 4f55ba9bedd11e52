"""Sending: what the window lets out goes to the client, and its acknowledgement is awaited."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING

import nats.errors

from shared.errors import MessageBusError
from shared.messaging.connection.client import write
from shared.messaging.connection.errors import bus_error, bus_errors
from shared.messaging.publishing import batches
from shared.messaging.publishing.acknowledgements import Acks, Call, PubAck
from shared.messaging.publishing.claim_check import ClaimCheck
from shared.messaging.publishing.wire import (
    CHUNK_BYTES,
    check_subject,
    command,
    header_block,
)
from shared.metrics import messages_published_total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats.aio.client import Client
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
            messages = await self._left(messages)
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
            self._forget(call)
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
            messages = await self._left(messages)
            await self._send_batch(call, messages)
            await call.done
            (commit,) = call.outcomes
        except MessageBusError as error:
            commit = error
        finally:
            self._forget(call)
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

    async def _left(self, messages: Sequence[OutgoingMessage]) -> Sequence[OutgoingMessage]:
        """Return the messages with their large bodies left at the object store."""
        if self._claims is None:
            return messages
        await self._outage.connected()
        return [await self._claims.leave(message) for message in messages]

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
        with bus_errors("publish"):
            await write(acks.client, commands, messages=messages)

    def _forget(self, call: Call) -> None:
        if not call.complete and self._acks is not None:
            self._acks.forget(call)

    async def _let_out(self) -> Acks:
        """Wait until the window lets one more message out; return where to expect its answer."""
        await self._window.acquire()
        try:
            return await self._ready()
        except BaseException:
            self._window.release()
            raise

    async def _ready(self) -> Acks:
        """Return the inbox of a connection that is there.

        Raises:
            MessageBusError: There is none, or the server does not answer.
        """
        client = await self._outage.connected()
        acks = self._acks
        if acks is None or acks.client is not client:
            acks = await self._open(client)
        if acks.silent and acks.waiting:
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
        stored = Counter(
            (outcome.stream, message.subject)
            for message, outcome in zip(messages, outcomes, strict=True)
            if isinstance(outcome, PubAck)
        )
        for labels, count in stored.items():
            counter = self._counters.get(labels)
            if counter is None:
                counter = messages_published_total.labels(self._bus.name, *labels)
                self._counters[labels] = counter
            counter.inc(count)


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
