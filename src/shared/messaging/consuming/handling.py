"""From the pipeline to one of the three ends, whatever happens: acknowledged, given back, or dead.

A poison message, one that kills its process or fails whenever it is tried, ends as a dead letter.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shared.errors import MessageBusError, Outcome
from shared.messaging.consuming.acknowledgements import Acknowledgements
from shared.messaging.consuming.attempts import Attempts, Record, attempt_number
from shared.messaging.consuming.delayed import Delayed
from shared.messaging.consuming.delivery import Batch
from shared.messaging.consuming.in_flight import MessageState
from shared.messaging.consuming.pipeline import (
    CircuitStep,
    ClaimCheckStep,
    DeadlineStep,
    MetricsStep,
    OutageStep,
    StoppedError,
    compose,
)
from shared.messaging.dead_letters.store import DeadLetters
from shared.resilience import CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.messaging.connection.bus import Bus
    from shared.messaging.consuming.delivery import Delivery
    from shared.messaging.consuming.in_flight import InFlight, InFlightMessage, Key
    from shared.messaging.consuming.metrics import SubscriberMetrics
    from shared.messaging.consuming.pipeline import Middleware
    from shared.messaging.consuming.subscription import Subscription

_logger = logging.getLogger(__name__)

EXHAUSTED = "attempts exhausted; last attempt did not finish"
ATTEMPTS_FAILED = "attempts exhausted"
HOPELESS = "no attempt can help"

# How many messages wait here with their verdict while dead letters cannot be stored.
_MAX_CONDEMNED = 1_000

# How long a pause is spent outside of a consumer that is crowded.
_CROWDED_WAIT_SECONDS = 2.0


class Handling:
    """Runs the pipeline of one subscription, and answers for its messages.

    Args:
        bus: where the messages come from.
        subscription: what is done with them.
        in_flight: all of them.
        service: the service, as dead letters name it.
        version: its version, for them as well.
        metrics: its metrics.
        draining: set once nothing new may begin.
        noted: told each error.
    """

    def __init__(
        self,
        bus: Bus,
        subscription: Subscription,
        *,
        in_flight: InFlight,
        service: str,
        version: str | None = None,
        metrics: SubscriberMetrics,
        draining: asyncio.Event,
        noted: Callable[[BaseException], None],
    ) -> None:
        self.acknowledgements = Acknowledgements(bus)
        self.delayed = Delayed(bus, subscription.durable)
        self._in_flight = in_flight
        self._subscription = subscription
        self._service = service
        self._version = version
        self._metrics = metrics
        self._draining = draining
        self._note = noted
        self._dead_letters = DeadLetters(bus)
        self._attempts = Attempts(bus, subscription.durable)
        self._condemned: dict[Key, tuple[str, Exception | None]] = {}
        self.breaker: CircuitBreaker | None = None
        if subscription.outage_threshold is not None:
            self.breaker = CircuitBreaker(
                subscription.durable,
                failures=subscription.outage_threshold,
                pause_seconds=subscription.retry.delay,
                on_change=metrics.circuit,
            )
        # What stands around the handler, the outermost first; see docs/messages.md.
        steps: list[Middleware] = [OutageStep(subscription.retry, draining=draining, noted=noted)]
        if self.breaker is not None:
            steps.append(CircuitStep(self.breaker))
        steps += [
            MetricsStep(metrics),
            DeadlineStep(subscription.deadline_seconds),
            ClaimCheckStep(bus),
            *subscription.middleware,
        ]
        self._handle = compose(steps, subscription.handler)
        if subscription.handle_batch is not None:
            self._handle_batch = compose(steps, self._all_of_a_batch)

    # -- one message, or a batch -------------------------------------------------------------

    async def one(self, message: InFlightMessage) -> None:
        """See one message through, in the current task."""
        try:
            if await self._begins(message):
                await self._run(message)
        except asyncio.CancelledError:
            await self.give_back_unspent([message])
            raise
        except Exception as error:  # noqa: BLE001 - it is logged, and the message comes again
            self._failed_to_settle(message, error)

    async def many(self, messages: list[InFlightMessage]) -> None:
        """See a batch through: all its messages at once or, if that fails, one by one."""
        left = messages
        try:
            left = [message for message in messages if await self._begins(message)]
            if left and await self._run_batch(left):
                return
            left = list(left)
            while left:
                try:
                    await self._run(left[0])
                except Exception as error:  # noqa: BLE001 - the same
                    self._failed_to_settle(left[0], error)
                del left[0]
        except asyncio.CancelledError:
            await self.give_back_unspent(left)
            raise

    def _failed_to_settle(self, message: InFlightMessage, error: Exception) -> None:
        self._note(error)
        _logger.error(
            "%s: failed; the message comes again",
            self._subscription.durable,
            extra=message.log_fields,
            exc_info=error,
        )

    async def _run(self, message: InFlightMessage) -> None:
        """Run the pipeline for one message, and see to its end."""
        try:
            if message.trouble is not None:
                raise message.trouble
            await self._handle(message)
        except StoppedError:
            await self.give_back_unspent([message])
        except Exception as error:  # noqa: BLE001 - whatever it is, it decides the message's fate
            await self._failed(message, error)
        else:
            await self._acknowledge(message)

    async def _run_batch(self, messages: list[InFlightMessage]) -> bool:
        """Run the pipeline for a batch, and tell whether it is seen through by that."""
        try:
            await self._handle_batch(Batch(self._subscription.subject, messages))
        except StoppedError:
            await self.give_back_unspent(messages)
        except Exception as error:  # noqa: BLE001 - whatever it is, each message is tried alone
            _logger.warning(
                "batch of %d failed, its messages go one by one: %s", len(messages), error
            )
            return False
        else:
            for message in messages:
                await self._acknowledge(message)
        return True

    async def _all_of_a_batch(self, delivery: Delivery) -> None:
        if self._subscription.handle_batch is not None:
            await self._subscription.handle_batch(delivery.deliveries)

    async def _begins(self, message: InFlightMessage) -> bool:
        """Tell whether an attempt is to be made; if not, the message has its end."""
        message.made = message.attempt
        policy = self._subscription.retry
        if self._draining.is_set():
            await self.give_back_unspent([message])
            return False
        if verdict := self._condemned.pop(message.key, None):
            await self._dead_letter(message, *verdict)
            return False
        if message.attempt == 1 or message.attempt < policy.attempts:
            return True
        # Perhaps the last attempt: what does the count hide, and did the last one kill its process?
        try:
            record = await self._attempts.read(message)
            number = attempt_number(message, record)
            ended = record.last if record else policy.attempts == 1
            if number > policy.attempts and ended:
                await self._dead_letter(message, EXHAUSTED, None)
                return False
            message.made = min(number, policy.attempts)
            if message.made == policy.attempts:
                await self._attempts.write(
                    message, Record(message.attempt, message.made, last=True)
                )
        except MessageBusError as error:
            self._note(error)
            _logger.warning("%s; the message comes again", error, extra=message.log_fields)
            self.give_back(message, policy.delay(policy.attempts))
            return False
        return True

    # -- ends --------------------------------------------------------------------------------

    async def _acknowledge(self, message: InFlightMessage) -> None:
        if self._subscription.double_ack:
            try:
                await self.acknowledgements.confirm(message)
            except MessageBusError as error:
                # Handled it is; should it come again, it is known by its key.
                self._note(error)
                _logger.warning("%s; the message may come again", error, extra=message.log_fields)
        else:
            self.acknowledgements.acknowledge(message)
        self._metrics.done(Outcome.ACK)

    async def _failed(self, message: InFlightMessage, error: Exception) -> None:
        policy = self._subscription.retry
        outcome = policy.outcome(error)
        if outcome is Outcome.ACK:
            await self._acknowledge(message)
        elif outcome is Outcome.DEAD_LETTER:
            await self._dead_letter(message, HOPELESS, error)
        elif message.made >= policy.attempts:
            await self._dead_letter(message, ATTEMPTS_FAILED, error)
        else:
            await self._retry(message, error)

    async def _retry(self, message: InFlightMessage, error: Exception) -> None:
        delay = self._subscription.retry.delay(message.made)
        _logger.warning(
            "attempt failed, next in %.1f s", delay, extra=message.log_fields, exc_info=error
        )
        self._metrics.done(Outcome.RETRY)
        if message.redelivered:
            # It was delivered to us again meanwhile: that was no attempt.
            await self._attempts.write(message, Record(message.attempt, message.made))
        if self._subscription.order_by is not None:
            # It waits here rather than in the consumer: should this process die, it comes back as
            # soon as the rest of its key, and not later.
            if message.move(MessageState.PAUSED):
                message.pause_seconds = delay
        elif not await self._put_off(message, delay):
            self.give_back(message, delay)

    async def _put_off(self, message: InFlightMessage, delay: float) -> bool:
        """Put the message off by a schedule, if that is worth it and possible."""
        long_wait = self._subscription.retry.long_wait_seconds
        if self._in_flight.crowded:
            long_wait = min(long_wait, _CROWDED_WAIT_SECONDS)
        if delay < long_wait or not await self.delayed.put_off(message, delay):
            return False
        self.acknowledgements.acknowledge(message)
        return True

    async def _dead_letter(
        self, message: InFlightMessage, reason: str, error: Exception | None
    ) -> None:
        """Store the message as a dead letter and, only once it is stored, end it."""
        try:
            await self._dead_letters.store(
                message,
                durable=self._subscription.durable,
                service=self._service,
                version=self._version,
                reason=reason,
                error=error,
            )
        except MessageBusError as trouble:
            self._note(trouble)
            _logger.exception(
                "dead letter not stored, the message comes again", extra=message.log_fields
            )
            if len(self._condemned) < _MAX_CONDEMNED:
                self._condemned[message.key] = (reason, error)
            self.give_back(message, self._subscription.retry.delay(message.made))
            return
        _logger.error("dead letter: %s", reason, extra=message.log_fields, exc_info=error)
        self._metrics.done(Outcome.DEAD_LETTER)
        self.acknowledgements.dead_lettered(message, reason)

    def give_back(self, message: InFlightMessage, delay_seconds: float = 0) -> None:
        """Give a message back, to be delivered again after a pause."""
        if self._in_flight.give_back_at(message, delay_seconds):
            self.acknowledgements.given_back(message, delay_seconds)

    async def give_back_unspent(self, messages: list[InFlightMessage]) -> None:
        """Give messages back whose attempt was not their own failure, and have it written down.

        What cannot be written down counts as an attempt; the last attempt is never lost by that.
        """
        messages = [message for message in messages if not message.ended]
        try:
            records: list[tuple[InFlightMessage, Record]] = []
            for message in messages:
                number = message.attempt
                if message.attempt > 1:
                    number = attempt_number(message, await self._attempts.read(message))
                records.append((message, Record(message.attempt, max(number - 1, 0))))
            await self._attempts.write_all(records)
        except MessageBusError as error:
            self._note(error)
        finally:
            for message in messages:
                self.give_back(message)
