"""The seam around publishing: steps that each message goes through on its way to the server.

A step is an async function of the message and of what comes after it, and returns what that does:

    async def audited(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        headers = {**message.headers, "X-Sent-By": "ada"}
        return await call_next(replace(message, headers=headers))

It may change the message, and what it raises is the error of that message. Of messages published
together each goes through the steps by itself; they are sent, in their order and as they would be
without steps, once all of them have come through; so a step must not hold a lock over `call_next`.
Calling `call_next` again sends the message again, alone. Of an atomic batch nothing is sent alone:
there it has the same outcome again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from shared.errors import MessageBusError, Outcome, outcome_of
from shared.messaging.publishing import batches
from shared.messaging.publishing.wire import OutgoingMessage, PubAck

# So long without one more message that came through: those that did not are stuck.
_STUCK_SECONDS = 30.0
_STUCK = (
    "it did not come through while those it is sent with waited; a step must not hold a lock over "
    "`call_next`, which waits for all of them"
)

PublishNext: TypeAlias = Callable[[OutgoingMessage], Awaitable[PubAck]]
PublishMiddleware: TypeAlias = Callable[[OutgoingMessage, PublishNext], Awaitable[PubAck]]
Sent: TypeAlias = PubAck | MessageBusError
Send: TypeAlias = Callable[[Sequence[OutgoingMessage]], Awaitable[list[Sent]]]


def through(steps: Sequence[PublishMiddleware], send: Send, *, alone: Send | None = None) -> Send:
    """Return a `send` whose messages go through the steps first.

    Args:
        steps: the first is the outermost.
        send: sends messages together.
        alone: sends single ones, if `send` sends all or none: then a message that does not come
            through the steps keeps the others back, as a refusal of their batch.
    """

    async def sent(messages: Sequence[OutgoingMessage]) -> list[Sent]:
        if len(messages) == 1:
            return [await _outcome(steps, messages[0], _alone(alone or send))]
        return await _Group(steps, send, alone).send(messages)

    return sent


def _alone(send: Send) -> PublishNext:
    async def end(message: OutgoingMessage) -> PubAck:
        (outcome,) = await send((message,))
        if isinstance(outcome, MessageBusError):
            raise outcome
        return outcome

    return end


async def _outcome(
    steps: Sequence[PublishMiddleware], message: OutgoingMessage, end: PublishNext
) -> Sent:
    """Take one message through the steps, and return what became of it."""
    for step in reversed(steps):
        end = _bound(step, end)
    task = asyncio.current_task()
    cancelling = task.cancelling() if task is not None else 0
    try:
        return await end(message)
    except MessageBusError as error:
        return error
    except asyncio.CancelledError as error:
        if task is not None and task.cancelling() > cancelling:
            raise
        return _failed(message, error, retryable=True)  # a step awaited what was cancelled
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this message's
        return _failed(message, error, retryable=outcome_of(error) is Outcome.RETRY)


def _failed(message: OutgoingMessage, error: BaseException, *, retryable: bool) -> MessageBusError:
    failed = MessageBusError(
        f"publish of {message.subject} failed in a middleware: {type(error).__name__}: {error}",
        operation="publish",
        subject=message.subject,
        retryable=retryable,
    )
    failed.__cause__ = error
    return failed


def _bound(step: PublishMiddleware, call_next: PublishNext) -> PublishNext:
    async def bound(message: OutgoingMessage) -> PubAck:
        acknowledged = await step(message, call_next)
        if not isinstance(acknowledged, PubAck):
            name = getattr(step, "__qualname__", type(step).__qualname__)
            raise TypeError(
                f"{name} returned {acknowledged!r}: it must return what call_next returns"
            )
        return acknowledged

    return bound


class _Group:
    """Messages that go through the steps side by side, and are sent together behind them."""

    def __init__(self, steps: Sequence[PublishMiddleware], send: Send, alone: Send | None) -> None:
        self._steps = steps
        self._send = send
        self._all_or_none = alone is not None
        self._again = _alone(alone or send)
        self._waiting: dict[int, tuple[OutgoingMessage, asyncio.Future[Sent]]] = {}
        self._on_their_way = 0
        self._all_here = asyncio.Event()

    async def send(self, messages: Sequence[OutgoingMessage]) -> list[Sent]:
        if not messages:
            return []
        self._on_their_way = len(messages)
        tasks = [asyncio.create_task(self._take(*placed)) for placed in enumerate(messages)]
        try:
            await self._come_through()
            stuck = self._stuck(tasks)
            await self._send_all(tasks)
            if through_it := set(tasks) - stuck:
                await asyncio.wait(through_it)
            return [
                _failed(message, TimeoutError(_STUCK), retryable=True)
                if task in stuck
                else task.result()
                for message, task in zip(messages, tasks, strict=True)
            ]
        finally:
            for task in tasks:
                task.cancel()

    async def _take(self, place: int, message: OutgoingMessage) -> Sent:
        async def end(changed: OutgoingMessage) -> PubAck:
            if place not in self._waiting:
                self._waiting[place] = changed, asyncio.get_running_loop().create_future()
                self._arrived()
            elif not self._all_or_none:
                return await self._again(changed)
            future = self._waiting[place][1]
            if future.cancelled():
                raise batches.refused("a step gave one of its messages up", retryable=True)
            outcome = await future
            if isinstance(outcome, MessageBusError):
                raise outcome
            return outcome

        try:
            return await _outcome(self._steps, message, end)
        finally:
            if place not in self._waiting:
                self._arrived()

    def _arrived(self) -> None:
        self._on_their_way -= 1
        if not self._on_their_way:
            self._all_here.set()

    async def _come_through(self) -> None:
        """Wait until all are here, as long as any of them still comes."""
        before = 0
        while before != self._on_their_way:
            before = self._on_their_way
            with suppress(TimeoutError):
                async with asyncio.timeout(_STUCK_SECONDS):
                    await self._all_here.wait()

    def _stuck(self, tasks: Sequence[asyncio.Task[Sent]]) -> set[asyncio.Task[Sent]]:
        """Give up those that did not come through, and return them."""
        stuck = {
            task
            for place, task in enumerate(tasks)
            if place not in self._waiting and not task.done()
        }
        for task in stuck:
            task.cancel()
        return stuck

    async def _send_all(self, tasks: Sequence[asyncio.Task[Sent]]) -> None:
        """Send what has come through the steps, and hand each one its outcome.

        Of all or none the first names what holds for the others, and must not be missing.
        """
        here = sorted(place for place, (_, f) in self._waiting.items() if not f.done())
        outcomes: list[Sent] = []
        if self._all_or_none and len(here) < len(tasks):
            ended = [task.result() for task in tasks if task.done() and not task.cancelled()]
            error = next((sent for sent in ended if isinstance(sent, MessageBusError)), None)
            refusal = batches.refused(
                str(error or "a step kept one of its messages back"),
                retryable=error is None or error.retryable,
            )
            outcomes = [refusal] * len(here)
        elif here:
            outcomes = await self._send([self._waiting[place][0] for place in here])
        for place, outcome in zip(here, outcomes, strict=True):
            future = self._waiting[place][1]
            if not future.done():  # its step may have waited no longer
                future.set_result(outcome)
