"""Seeing messages through: from the handler to the answer, whatever happens."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import TYPE_CHECKING

from shared.errors import (
    InfrastructureError,
    MessageBusError,
    Outcome,
    RequestTimeoutError,
    UpstreamServiceError,
)
from shared.messaging.consuming.acknowledgements import ACK, Answers, nak, term
from shared.messaging.consuming.attempts import Attempts, Record, attempt_number
from shared.messaging.consuming.deadlines import Deadlines
from shared.messaging.consuming.delayed import Later
from shared.messaging.dead_letters.store import DeadLetters
from shared.messaging.publishing.claim_check import CLAIM, resolve
from shared.resilience import Circuit, CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.messaging.connection.bus import Bus
    from shared.messaging.consuming.in_flight import Held, Key
    from shared.messaging.consuming.metrics import Measures
    from shared.messaging.consuming.subscription import Subscription

_logger = logging.getLogger(__name__)

EXHAUSTED = "attempts exhausted; last attempt did not finish"
ATTEMPTS_FAILED = "attempts exhausted"
HOPELESS = "no attempt can help"

# How many messages wait here with their verdict while dead letters cannot be stored.
_MAX_CONDEMNED = 1_000

# With so many messages waiting in the consumer, shorter pauses are spent outside of it as well.
_CROWDED = 5_000
_CROWDED_WAIT_SECONDS = 2.0


class _StoppedError(Exception):
    """Draining began before another attempt could."""


class Handling:
    """Runs the handler of one subscription, and answers for its messages.

    Args:
        bus: where the messages come from.
        subscription: what is done with them.
        service: the service, as dead letters name it.
        version: its version, for them as well.
        measures: its metrics.
        draining: set once nothing new may begin.
        noted: told each error.
    """

    def __init__(
        self,
        bus: Bus,
        subscription: Subscription,
        *,
        service: str,
        version: str | None = None,
        measures: Measures,
        draining: asyncio.Event,
        noted: Callable[[BaseException], None],
    ) -> None:
        self.answers = Answers(bus)
        self.later = Later(bus, subscription.durable)
        self.waiting: dict[Key, float] = {}
        self._bus = bus
        self._subscription = subscription
        self._service = service
        self._version = version
        self._measures = measures
        self._draining = draining
        self._note = noted
        self._dead_letters = DeadLetters(bus)
        self._attempts = Attempts(bus, subscription.durable)
        self._deadlines = Deadlines(subscription.deadline_seconds)
        self._condemned: dict[Key, tuple[str, Exception | None]] = {}
        self.breaker: CircuitBreaker | None = None
        if subscription.outage_threshold is not None:
            self.breaker = CircuitBreaker(
                subscription.durable,
                failures=subscription.outage_threshold,
                pause_seconds=subscription.retry.delay,
                on_change=measures.circuit,
            )

    # -- one message, or a batch -------------------------------------------------------------

    async def one(self, held: Held, task: asyncio.Task[None]) -> None:
        """See one message through, in the current task."""
        try:
            if self._plainly_begins(held) or await self._begins(held):
                await self._run(held, task)
        except asyncio.CancelledError:
            await self.give_back_unspent([held])
            raise
        except Exception as error:
            self._note(error)
            _logger.exception(
                "%s: failed; the message comes again",
                self._subscription.durable,
                extra=held.told(),
            )

    async def many(self, batch: list[Held], task: asyncio.Task[None]) -> None:
        """See a batch through: all its messages at once or, if that fails, one by one."""
        left = list(batch)
        try:
            left = [held for held in batch if await self._begins(held)]
            if left and await self._run_together(left, task):
                return
            while left:
                try:
                    await self._run(left[0], task)
                except Exception as error:
                    self._note(error)
                    _logger.exception("failed; the message comes again", extra=left[0].told())
                del left[0]
        except asyncio.CancelledError:
            await self.give_back_unspent(left)
            raise

    async def _run_together(self, batch: list[Held], task: asyncio.Task[None]) -> bool:
        """Run the handler of batches, and tell whether the batch is seen through by that."""
        handle = self._subscription.handle_batch
        if handle is None:  # pragma: no cover - `Subscription` takes care of that
            return False

        async def together() -> None:
            await handle([await resolve(self._bus, held.delivery) for held in batch])

        error = await self._outlast_outages(batch, together, task)
        if error is None:
            for held in batch:
                await self._acknowledge(held)
            return True
        if isinstance(error, _StoppedError):
            await self.give_back_unspent(batch)
            return True
        _logger.warning("batch of %d failed, its messages go one by one: %s", len(batch), error)
        return False

    def _plainly_begins(self, held: Held) -> bool:
        """Tell whether an attempt is to be made, as of nearly all messages, without a question."""
        held.made = held.attempt
        return (held.attempt < self._subscription.retry.attempts or held.attempt == 1) and not (
            self._draining.is_set() or held.key in self._condemned
        )

    async def _begins(self, held: Held) -> bool:
        """Tell whether an attempt is to be made; if not, the message is answered."""
        if self._draining.is_set():
            await self.give_back_unspent([held])
            return False
        if verdict := self._condemned.pop(held.key, None):
            await self._bury(held, *verdict)
            return False
        if self._plainly_begins(held):
            return True
        policy = self._subscription.retry
        # Perhaps the last attempt: what does the count hide, and did the last one kill its process?
        try:
            record = await self._attempts.read(held)
            number = attempt_number(held, record)
            ended = record.last if record else policy.attempts == 1
            if number > policy.attempts and ended:
                await self._bury(held, EXHAUSTED, None)
                return False
            held.made = min(number, policy.attempts)
            if held.made == policy.attempts:
                await self._attempts.write(held, Record(held.attempt, held.made, last=True))
        except MessageBusError as error:
            self._note(error)
            _logger.warning("%s; the message comes again", error, extra=held.told())
            self.again(held, policy.delay(policy.attempts))
            return False
        return True

    async def _run(self, held: Held, task: asyncio.Task[None]) -> None:
        """Run the handler for one message, and answer accordingly."""
        handler = self._subscription.handler

        # Each try asks for the delivery anew: it may have been delivered again meanwhile.
        def as_it_is() -> Awaitable[None]:
            return handler(held.delivery)

        async def with_its_body() -> None:
            await handler(await resolve(self._bus, held.delivery))

        handle = with_its_body if CLAIM in held.delivery.headers else as_it_is
        error = held.trouble or await self._outlast_outages([held], handle, task)
        if error is None:
            await self._acknowledge(held)
        elif isinstance(error, _StoppedError):
            await self.give_back_unspent([held])
        else:
            await self._failed(held, error)

    async def _outlast_outages(
        self,
        messages: list[Held],
        handle: Callable[[], Awaitable[None]],
        task: asyncio.Task[None],
    ) -> Exception | None:
        """Run the handler, again and again while an outage lasts, and return what it raised."""
        policy = self._subscription.retry
        began = monotonic()
        tries = 0
        while (error := await self._attempt(messages, handle, task)) is not None:
            self._note(error)
            tries += 1
            over = monotonic() - began >= policy.patience_seconds
            if over or not is_outage(error) or policy.outcome(error) is not Outcome.RETRY:
                return error
            _logger.warning("outage: %s", error, extra=messages[0].told())
            if await self._drains_within(policy.delay(tries)):
                return _StoppedError()
        return None

    async def _attempt(
        self,
        messages: list[Held],
        handle: Callable[[], Awaitable[None]],
        task: asyncio.Task[None],
    ) -> Exception | None:
        """Run the handler once, as soon as the circuit lets it, and return what it raised."""
        breaker = self.breaker
        if breaker is None:
            return await self._try(messages, handle, task)
        if breaker.state is not Circuit.CLOSED and not await breaker.admission():
            return _StoppedError()
        try:
            error = await self._try(messages, handle, task)
        except BaseException:
            breaker.abandoned()
            raise
        if error is not None and is_outage(error):
            breaker.failed(error)
        else:
            breaker.succeeded()
        return error

    async def _try(
        self,
        messages: list[Held],
        handle: Callable[[], Awaitable[None]],
        task: asyncio.Task[None],
    ) -> Exception | None:
        cancelling = task.cancelling()
        began = self._measures.began(messages)
        attempt = self._deadlines.begin(task)
        try:
            await handle()
        except asyncio.CancelledError as error:
            self._deadlines.end(attempt)
            if task.cancelling() > cancelling:
                raise
            if attempt is not None and attempt.expired:
                late = f"attempt took longer than {self._deadlines.seconds} s"
                return _chained(TimeoutError(late), error)
            # Not we: the handler awaited something that was cancelled.
            return _chained(RuntimeError("the handler was cancelled from within"), error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it decides the message's fate
            self._deadlines.end(attempt)
            return error
        else:
            self._deadlines.end(attempt)
            return None
        finally:
            self._measures.ended(messages, began)

    # -- fates -------------------------------------------------------------------------------

    async def _acknowledge(self, held: Held) -> None:
        if self._subscription.double_ack:
            try:
                await self.answers.confirm(held)
            except MessageBusError as error:
                # Handled it is; should it come again, `Subscriber` knows it by its key.
                self._note(error)
                _logger.warning("%s; the message may come again", error, extra=held.told())
        else:
            self.answers.give(held, ACK)
        self._measures.done(Outcome.ACK)

    async def _failed(self, held: Held, error: Exception) -> None:
        policy = self._subscription.retry
        outcome = policy.outcome(error)
        if outcome is Outcome.ACK:
            await self._acknowledge(held)
        elif outcome is Outcome.DEAD_LETTER:
            await self._bury(held, HOPELESS, error)
        elif held.made >= policy.attempts:
            await self._bury(held, ATTEMPTS_FAILED, error)
        else:
            await self._retry(held, error)

    async def _retry(self, held: Held, error: Exception) -> None:
        delay = self._subscription.retry.delay(held.made)
        _logger.warning("attempt failed, next in %.1f s", delay, extra=held.told(), exc_info=error)
        self._measures.done(Outcome.RETRY)
        if held.redelivered:
            # It was delivered to us again meanwhile: that was no attempt.
            await self._attempts.write(held, Record(held.attempt, held.made))
        if self._subscription.order_by is not None:
            # It waits here rather than in the consumer: should this process die, it comes back as
            # soon as the rest of its key, and not later.
            held.pause_seconds = delay
        elif not await self._put_off(held, delay):
            self.again(held, delay)

    async def _put_off(self, held: Held, delay: float) -> bool:
        """Put the message off by a schedule, if that is worth it and possible."""
        long_wait = self._subscription.retry.long_wait_seconds
        if self._crowded():
            long_wait = min(long_wait, _CROWDED_WAIT_SECONDS)
        if delay < long_wait or not await self.later.put_off(held, delay):
            return False
        self.answers.give(held, ACK)
        return True

    def _crowded(self) -> bool:
        if len(self.waiting) < _CROWDED:
            return False
        now = monotonic()
        for key in [key for key, due in self.waiting.items() if due < now]:
            del self.waiting[key]
        return len(self.waiting) >= _CROWDED

    async def _bury(self, held: Held, reason: str, error: Exception | None) -> None:
        """Store the message as a dead letter and, only once it is stored, end it."""
        try:
            await self._dead_letters.store(
                held.delivery,
                durable=self._subscription.durable,
                service=self._service,
                version=self._version,
                reason=reason,
                error=error,
            )
        except MessageBusError as trouble:
            self._note(trouble)
            _logger.exception("dead letter not stored, the message comes again", extra=held.told())
            if len(self._condemned) < _MAX_CONDEMNED:
                self._condemned[held.key] = (reason, error)
            self.again(held, self._subscription.retry.delay(held.made))
            return
        _logger.error("dead letter: %s", reason, extra=held.told(), exc_info=error)
        self._measures.done(Outcome.DEAD_LETTER)
        self.answers.give(held, term(reason))

    def again(self, held: Held, delay_seconds: float = 0) -> None:
        """Give a message back, to be delivered again after a pause."""
        if not held.answered:
            held.comes_again = True
            self.waiting[held.key] = monotonic() + delay_seconds
            self.answers.give(held, nak(delay_seconds))

    async def give_back_unspent(self, messages: list[Held]) -> None:
        """Give messages back whose attempt was not their own failure, and have it written down.

        What cannot be written down counts as an attempt; the last attempt is never lost by that.
        """
        messages = [held for held in messages if not held.answered]
        try:
            records: list[tuple[Held, Record]] = []
            for held in messages:
                number = held.attempt
                if held.attempt > 1:
                    number = attempt_number(held, await self._attempts.read(held))
                records.append((held, Record(held.attempt, max(number - 1, 0))))
            await self._attempts.write_all(records)
        except MessageBusError as error:
            self._note(error)
        finally:
            for held in messages:
                self.again(held)

    async def _drains_within(self, seconds: float) -> bool:
        """Sleep, unless draining begins; tell whether it did."""
        try:
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        except TimeoutError:
            return False
        return True


def is_outage(error: BaseException) -> bool:
    """Tell whether `error` says that a part every message needs is out, for a time."""
    return (
        isinstance(error, InfrastructureError)
        and error.retryable
        and not isinstance(error, UpstreamServiceError | RequestTimeoutError)
    )


def _chained(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error
