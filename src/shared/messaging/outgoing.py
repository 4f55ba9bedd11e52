"""Publishing into a stream, with the server's word that it is stored."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, cast

import nats.errors
from pydantic_core import from_json

from shared.errors import MessageBusError
from shared.messaging import _batches
from shared.messaging._gate import bus_error, translated
from shared.metrics import messages_published_total

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from shared.messaging.bus import Bus

MESSAGE_ID = "Nats-Msg-Id"

# Room for the headers a dead letter adds: what could be published can also be buried.
HEADROOM_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """A message ready for the wire; `message_id` is what the stream dedupes by."""

    subject: str
    body: bytes
    headers: Mapping[str, str]
    message_id: str


@dataclass(frozen=True, slots=True)
class PubAck:
    """The server's word: stored in `stream` as `sequence`.

    `duplicate` says that a message of the same id was already there (inside the stream's dedupe
    window) and this one was not stored again.
    """

    stream: str
    sequence: int
    duplicate: bool = False


class Publisher:
    """Publishes to JetStream and waits for the acknowledgements.

    At most `window` messages are unacknowledged at a time, over all callers: who comes then waits,
    which is the back-pressure. An acknowledgement is awaited for `timeout_seconds`. A message may
    be as large as the server takes, less `headroom_bytes`.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        window: int = 256,
        timeout_seconds: float = 5.0,
        headroom_bytes: int = HEADROOM_BYTES,
    ) -> None:
        self._bus = bus
        self._timeout_seconds = timeout_seconds
        self._headroom_bytes = headroom_bytes
        self._window = asyncio.Semaphore(window)
        self._acks: _Acks | None = None
        self._opening = asyncio.Lock()

    async def publish(self, message: OutgoingMessage) -> PubAck:
        """Publish one message.

        Raises:
            MessageBusError: It is not known to be stored. When `retryable`, publish it again under
                the same `message_id`: if the first did arrive, the answer says `duplicate`.
        """
        (result,) = await self.publish_all([message])
        if isinstance(result, MessageBusError):
            raise result
        return result

    async def publish_all(
        self, messages: Sequence[OutgoingMessage]
    ) -> list[PubAck | MessageBusError]:
        """Publish the messages in their order, many in flight, and return each one's outcome.

        An error stands at its message's place and does not keep the later ones back.
        """
        results = [await self._send(message) for message in messages]
        try:
            outcomes = [
                result if isinstance(result, MessageBusError) else await result
                for result in results
            ]
        finally:
            for result in results:
                if isinstance(result, asyncio.Future):
                    result.cancel()
        for message, outcome in zip(messages, outcomes, strict=True):
            if isinstance(outcome, PubAck):
                messages_published_total.labels(
                    self._bus.name, outcome.stream, message.subject
                ).inc()
        return outcomes

    async def publish_atomic(
        self, messages: Sequence[OutgoingMessage]
    ) -> list[PubAck | MessageBusError]:
        """Publish the messages in batches that are each stored whole or not at all (ADR-50).

        One batch holds what goes to one stream, at most 1,000 messages; each stream's batches
        follow one another in the order of the messages, and after one that failed its later ones
        are not sent. Raises nothing: each message's outcome stands at its place.

        A batch that the server refused has ``details["batch_refused"]`` set in the error of each of
        its messages, and of those not sent on its account: none of them is stored, and
        `publish_all` may do what the batch could not. It is refused, for instance, for a single
        message whose id the stream knows already, on servers before 2.12, and by a stream that
        was made without `allow_atomic`. Any other error is of unknown outcome, the same for
        the whole batch: publish it again under the same ids. What was then not sent on its account
        has ``details["held_back"]``. A message alone is published without a batch.
        """
        outcomes: list[PubAck | MessageBusError | None] = [None] * len(messages)
        for places in _batches.by_stream(messages):
            failed: MessageBusError | None = None
            for batch in _batches.split(places):
                if failed is None:
                    results = await self._publish_batch([messages[place] for place in batch])
                    failed = next((r for r in results if isinstance(r, MessageBusError)), None)
                else:
                    results = [_batches.held_back(failed) for _ in batch]
                for place, result in zip(batch, results, strict=True):
                    outcomes[place] = result
        return [outcome for outcome in outcomes if outcome is not None]

    async def _publish_batch(
        self, messages: Sequence[OutgoingMessage]
    ) -> list[PubAck | MessageBusError]:
        count = len(messages)
        if count == 1:
            return await self.publish_all(messages)
        *former, last = _batches.numbered(messages)
        try:
            client = self._bus.client
            if unsupported := _batches.unsupported(client):
                raise unsupported
            for message in (*former, last):
                self._check_size(message, {**message.headers, MESSAGE_ID: message.message_id})
            with translated("publish", subject=last.subject):
                for message in former:
                    await client.publish(
                        message.subject,
                        message.body,
                        headers={**message.headers, MESSAGE_ID: message.message_id},
                    )
            (commit,) = await self.publish_all([last])
        except MessageBusError as error:
            commit = error
        if isinstance(commit, MessageBusError):
            return [_batches.whole(commit)] * count
        return [*_batches.acks_of(commit, count)]

    async def _send(self, message: OutgoingMessage) -> _PendingAck | MessageBusError:
        try:
            headers = {**message.headers, MESSAGE_ID: message.message_id}
            self._check_size(message, headers)
            acks = self._acks
            if acks is None or acks.client is not self._bus.client:
                acks = await self._open()
            await self._window.acquire()
            future = acks.expect(message.subject, self._timeout_seconds)
            future.add_done_callback(lambda _: self._window.release())
            try:
                with translated("publish", subject=message.subject):
                    await acks.client.publish(
                        message.subject, message.body, reply=future.reply, headers=headers
                    )
            except BaseException:
                future.cancel()
                raise
        except MessageBusError as error:
            return error
        else:
            return future

    def _check_size(self, message: OutgoingMessage, headers: Mapping[str, str]) -> None:
        size = len(message.body) + headers_size(headers)
        limit = self._bus.client.max_payload - self._headroom_bytes
        if size > limit:
            raise MessageBusError(
                f"message to {message.subject} is too large: {size} bytes, at most {limit}",
                operation="publish",
                subject=message.subject,
                retryable=False,
                details={"size_bytes": size, "limit_bytes": limit},
            )

    async def _open(self) -> _Acks:
        async with self._opening:
            client = self._bus.client
            if self._acks is None or self._acks.client is not client:
                acks = _Acks(client)
                with translated("publish"):
                    await acks.open()
                if self._acks is None:
                    self._bus.on_connection(self._connection_changed)
                self._acks = acks
        return self._acks

    def _connection_changed(self) -> None:
        if self._acks is not None:
            self._acks.give_up_lost()


def headers_size(headers: Mapping[str, str]) -> int:
    """Return how many bytes the headers take on the wire."""
    lines = sum(len(f"{name}: {value}\r\n".encode()) for name, value in headers.items())
    return len("NATS/1.0\r\n\r\n") + lines


class _PendingAck(asyncio.Future["PubAck | MessageBusError"]):
    """An acknowledgement on its way; its result is the outcome, never an exception."""

    reply: str
    subject: str
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


class _Acks:
    """The inbox all acknowledgements of one connection come back to."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._inbox = client.new_inbox()
        self._expected: dict[str, _PendingAck] = {}
        self._count = 0

    async def open(self) -> None:
        await self.client.subscribe(f"{self._inbox}.*", cb=self._receive)

    def expect(self, subject: str, timeout_seconds: float) -> _PendingAck:
        loop = asyncio.get_running_loop()
        self._count += 1
        future = _PendingAck(loop=loop)
        future.reply = f"{self._inbox}.{self._count}"
        future.subject = subject
        # What is sent while there is no connection goes out on the next one.
        future.connection = self._connection + (not self.client.is_connected)
        self._expected[future.reply] = future
        timer = loop.call_later(timeout_seconds, self._give_up, future, TimeoutError())

        def settled(_: object) -> None:
            timer.cancel()
            self._expected.pop(future.reply, None)

        future.add_done_callback(settled)
        return future

    def give_up_lost(self) -> None:
        """Stop waiting for acknowledgements that were lost with an earlier connection."""
        for future in list(self._expected.values()):
            if future.connection < self._connection or self.client.is_closed:
                self._give_up(future, ConnectionResetError("the connection was lost meanwhile"))

    @property
    def _connection(self) -> int:
        return self.client.stats["reconnects"]

    def _give_up(self, future: _PendingAck, error: Exception) -> None:
        if not future.done():
            future.set_result(bus_error("publish", error, subject=future.subject))

    async def _receive(self, message: Msg) -> None:
        future = self._expected.get(message.subject)
        if future is not None and not future.done():
            future.set_result(_read_ack(message, future.subject))


def _read_ack(message: Msg, subject: str) -> PubAck | MessageBusError:
    if message.headers and message.headers.get("Status") == "503":
        cause = nats.errors.NoRespondersError()
        error = bus_error("publish", cause, subject=subject)
        error.__cause__ = cause
        return error
    body = cast("_AckBody", from_json(message.data))
    if refusal := body.get("error"):
        return MessageBusError(
            f"publish of {subject} was refused: {refusal.get('description')}",
            operation="publish",
            subject=subject,
            retryable=refusal.get("code") != 400,  # noqa: PLR2004 - the request is at fault
            details={"error_code": refusal.get("err_code")},
        )
    return PubAck(body["stream"], body["seq"], body.get("duplicate", False))
