"""The seam around publishing: steps that each message goes through on its way to the server.

A step is an async function of the message and of what comes after it, and returns what that does:

    async def audited(message: OutgoingMessage, call_next: PublishNext) -> PubAck:
        headers = {**message.headers, "X-Sent-By": "ada"}
        return await call_next(replace(message, headers=headers))

It may change the message, and what it raises is the error of that message. Of messages published
together each goes through the steps by itself; they are sent, in their order and as they would be
without steps, once all of them have come through. Calling `call_next` again sends the message
again, alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from shared.errors import MessageBusError, Outcome, outcome_of
from shared.messaging.publishing import batches
from shared.messaging.publishing.wire import OutgoingMessage, PubAck

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
    try:
        return await end(message)
    except MessageBusError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this message's
        failed = MessageBusError(
            f"publish of {message.subject} failed in a middleware: {type(error).__name__}: {error}",
            operation="publish",
            subject=message.subject,
            retryable=outcome_of(error) is Outcome.RETRY,
        )
        failed.__cause__ = error
        return failed


def _bound(step: PublishMiddleware, call_next: PublishNext) -> PublishNext:
    return lambda message: step(message, call_next)


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
        self._on_their_way = len(messages)
        if not messages:
            return []
        tasks = [asyncio.create_task(self._take(*placed)) for placed in enumerate(messages)]
        try:
            await self._all_here.wait()
            await self._send_all(tasks)
            outcomes = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return outcomes

    async def _take(self, place: int, message: OutgoingMessage) -> Sent:
        async def end(changed: OutgoingMessage) -> PubAck:
            if place in self._waiting:
                return await self._again(changed)
            future: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
            self._waiting[place] = changed, future
            self._arrived()
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

    async def _send_all(self, tasks: Sequence[asyncio.Task[Sent]]) -> None:
        """Send what has come through the steps, and hand each one its outcome."""
        places = sorted(self._waiting)
        missing = [tasks[place].result() for place in range(len(tasks)) if place not in places]
        failed = next((sent for sent in missing if isinstance(sent, MessageBusError)), None)
        if failed is not None and self._all_or_none:
            refusal = batches.refused(str(failed), retryable=failed.retryable)
            outcomes: list[Sent] = [refusal] * len(places)
        else:
            outcomes = await self._send([self._waiting[place][0] for place in places])
        for place, outcome in zip(places, outcomes, strict=True):
            self._waiting[place][1].set_result(outcome)
