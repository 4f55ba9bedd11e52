"""The engine under every handler: reads a stream and sees each message through to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from pydantic_core import to_json

from shared.context import TraceContext
from shared.errors import (
    InfrastructureError,
    MessageBusError,
    Outcome,
    RequestTimeoutError,
    UpstreamServiceError,
    outcome_of,
)
from shared.messaging._consumer import ensure_consumer
from shared.messaging._gate import translated
from shared.messaging._pull import Pull, PullLostError
from shared.messaging.dead_letters import REPLAY_FOR, DeadLetters
from shared.messaging.delivery import AckSubject, Delivery
from shared.messaging.retry import RetryPolicy
from shared.messaging.subscription import State, SubscriberStatus, Subscription
from shared.metrics import (
    exemplar,
    message_handling_seconds,
    message_lag_seconds,
    messages_dead_lettered_total,
    messages_handled_total,
    messages_in_progress,
    messages_pending,
    messages_retried_total,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nats.aio.msg import Msg

    from shared.messaging.bus import Bus

_logger = logging.getLogger(__name__)

EXHAUSTED = "attempts exhausted; last attempt did not finish"
ATTEMPTS_FAILED = "attempts exhausted"
HOPELESS = "no attempt can help"

# How soon to look again for a stream that is not there, or a server that is away.
_HEALING = RetryPolicy(first_delay_seconds=0.1, max_delay_seconds=5.0)

# How many messages wait here with their verdict while dead letters cannot be stored.
_MAX_CONDEMNED = 1_000

# How long cancelled handlers get, and how often they are told.
_CANCEL_SECONDS = 1.0
_CANCEL_ROUNDS = 5


# A sequence alone would confuse the messages of a stream with those of its successor.
_Key: TypeAlias = tuple[int, int]


@dataclass(eq=False, slots=True)
class _Held:
    """A message given to us and not answered yet."""

    key: _Key
    delivery: Delivery
    attempt: int
    reply: str
    answered: bool = False


class Subscriber:
    """Hands the messages of one subscription to its handler until drained.

    Every message ends in one of three ways: acknowledged, given back for another attempt, or stored
    as a dead letter. Whatever happens to the connection, the consumer or the stream, reading goes
    on as soon as it can; a stream that is not there yet is waited for.

    When the attempts of the policy are used up, or the error says that no attempt can help, the
    message is stored among the dead letters and, once the server has it there, ended. A message
    that comes after its last attempt has lost a process in it: it becomes a dead letter unseen by
    the handler, since it may be what killed the process.

    While an error says that the database, the bus or another part every message needs is out
    (a retryable `InfrastructureError`, except of another service's making), the attempt is not
    counted: the message keeps its place and is tried again, see `RetryPolicy.patience_seconds`.
    With all places taken nothing more is fetched until the outage is over.
    """

    def __init__(self, bus: Bus, subscription: Subscription, *, service: str) -> None:
        self.subscription = subscription
        self._bus = bus
        self._service = service
        self._stream = subscription.stream or ""
        self._dead_letters = DeadLetters(bus)
        self._metrics = _Metrics(service, subscription.durable)
        self._held: dict[_Key, _Held] = {}
        self._condemned: dict[_Key, tuple[str, Exception | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._state = State.WAITING
        self._last_error: str | None = None
        self._lag = 0
        self._pull: Pull | None = None
        self._draining = asyncio.Event()
        self._read_to_end = asyncio.Event()
        self._stopped = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether it reads or tries to; False before `run`, after it, and if its loop died."""
        return self._running is not None and not self._running.done() and not self._stopped.is_set()

    @property
    def status(self) -> SubscriberStatus:
        """Where it stands now."""
        return SubscriberStatus(
            state=self._state,
            stream=self._stream,
            subject=self.subscription.subject,
            durable=self.subscription.durable,
            in_flight=len(self._held),
            lag=self._lag,
            last_error=self._last_error,
        )

    async def run(self) -> None:
        """Read and handle until drained.

        Cancelled, it cancels its handlers and gives their messages back.

        Raises:
            RuntimeError: It was run before.
        """
        if self._running is not None:
            raise RuntimeError(f"{self.subscription.durable} runs already, or did")
        self._running = asyncio.current_task()
        forget = self._bus.on_connection(self._connection_changed)
        keeper = asyncio.create_task(self._show_signs_of_life())
        try:
            await self._read()
            self._read_to_end.set()
            await self._stopped.wait()
        finally:
            forget()
            await self._give_up()
            keeper.cancel()
            self._state = State.STOPPED
            self._read_to_end.set()
            self._stopped.set()

    async def drain(self, grace_seconds: float) -> None:
        """Stop fetching, let the running handlers finish, and end `run`.

        What arrived and was not begun is given back at once. Handlers that still run after
        `grace_seconds` are cancelled and their messages given back. A second call waits for the
        end of the first.
        """
        if not self.alive:
            self._draining.set()
            self._stopped.set()
            return
        if self._draining.is_set():
            await self._stopped.wait()
            return
        self._draining.set()
        self._state = State.DRAINING
        self._wake()
        try:
            async with asyncio.timeout(grace_seconds):
                await self._read_to_end.wait()
                while self._tasks:
                    await asyncio.wait(self._tasks)
        except TimeoutError:
            _logger.warning(
                "%s: %d handlers did not finish in time; their messages are given back",
                self.subscription.durable,
                len(self._tasks),
            )
        await self._give_up()
        self._stopped.set()

    # -- reading -----------------------------------------------------------------------------

    async def _read(self) -> None:
        """Keep a pull standing until draining begins, through whatever happens to it."""
        failures = 0
        while not self._draining.is_set():
            try:
                failures = 0 if await self._read_once() else failures + 1
            except Exception as error:
                failures += 1
                self._note(error)
                if not isinstance(error, MessageBusError):
                    _logger.exception("%s: reading failed", self.subscription.durable)
            if failures:
                await self._pause(_HEALING.delay(failures))

    async def _read_once(self) -> bool:
        """Read through one pull until it is lost; return whether it ever worked."""
        await ensure_consumer(self._bus, self.subscription)
        async with Pull(
            self._bus.client, self._stream, self.subscription.durable, receive=self._receive
        ) as pull:
            self._pull = pull
            try:
                self._enter(State.RUNNING)
                while not self._draining.is_set():
                    await self._refill(pull)
                    await pull.wait()
            except PullLostError as lost:
                self._note(lost)
            finally:
                self._pull = None
        if not pull.heard and not self._draining.is_set():
            await self._bus.suspect()
        return pull.heard

    async def _refill(self, pull: Pull) -> None:
        """Ask for as many messages as there are free places, half of them at a time."""
        places = self.subscription.concurrency
        free = places - len(self._held) - pull.outstanding
        if free > 0 and (2 * free >= places or not pull.outstanding):
            await pull.request(free)

    def _receive(self, message: Msg) -> None:
        ack = AckSubject.parse(message.reply)
        self._lag = ack.pending
        self._metrics.pending.set(ack.pending)
        key = (ack.sequence, ack.stored_at_ns)
        if held := self._held.get(key):
            # We were cut off for longer than ack_wait and get again what we are still working on.
            held.attempt, held.reply = ack.attempt, message.reply
            return
        delivery = Delivery(
            subject=message.subject,
            body=message.data,
            headers=message.headers or {},
            stream=ack.stream,
            sequence=ack.sequence,
            attempt=ack.attempt,
            published_at=ack.stored_at,
        )
        held = self._held[key] = _Held(key, delivery, ack.attempt, message.reply)
        task = asyncio.create_task(self._see_through(held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _connection_changed(self) -> None:
        if self._pull is not None:
            self._pull.lose("the connection was lost for a while")

    def _wake(self) -> None:
        if self._pull is not None:
            self._pull.wake()

    # -- one message -------------------------------------------------------------------------

    async def _see_through(self, held: _Held) -> None:
        durable = self.subscription.durable
        try:
            if self._draining.is_set():
                await self._give_back(held)
            elif held.delivery.headers.get(REPLAY_FOR, durable) != durable:
                await self._answer(held, b"+ACK")
            elif verdict := self._condemned.pop(held.key, None):
                await self._bury(held, *verdict)
            elif held.attempt > self.subscription.retry.attempts:
                await self._bury(held, EXHAUSTED, None)
            else:
                await self._handle(held)
        except asyncio.CancelledError:
            await self._give_back(held)
            raise
        except Exception as error:
            self._note(error)
            _logger.exception("%s: failed; the message comes again", durable, extra=_told(held))
        finally:
            del self._held[held.key]
            self._wake()

    async def _handle(self, held: _Held) -> None:
        """Run the handler, again and again while an outage lasts, and answer accordingly."""
        policy = self.subscription.retry
        begun = _now()
        tries = 0
        while (error := await self._attempt(held)) is not None:
            self._note(error)
            tries += 1
            if not is_outage(error) or _now() - begun >= policy.patience_seconds:
                await self._failed(held, error)
                return
            _logger.warning("outage: %s", error, extra=_told(held))
            await self._pause(policy.delay(tries))
            if self._draining.is_set():
                await self._give_back(held)
                return
        await self._acknowledge(held)

    async def _attempt(self, held: _Held) -> Exception | None:
        """Run the handler once and return what it raised."""
        deadline = self.subscription.deadline_seconds
        try:
            with self._metrics.handling(held.delivery):
                async with asyncio.timeout(deadline) as timeout:
                    await self.subscription.handler(held.delivery)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Not we: the handler awaited something that was cancelled.
            return _chained(RuntimeError("the handler was cancelled from within"), error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it decides the message's fate
            if isinstance(error, TimeoutError) and timeout.expired():
                return _chained(TimeoutError(f"attempt took longer than {deadline} s"), error)
            return error
        return None

    async def _failed(self, held: _Held, error: Exception) -> None:
        policy = self.subscription.retry
        outcome = outcome_of(error)
        if outcome is Outcome.ACK:
            await self._acknowledge(held)
        elif outcome is Outcome.DEAD_LETTER:
            await self._bury(held, HOPELESS, error)
        elif held.attempt >= policy.attempts:
            await self._bury(held, ATTEMPTS_FAILED, error)
        else:
            delay = policy.delay(held.attempt)
            _logger.warning(
                "attempt failed, next in %.1f s", delay, extra=_told(held), exc_info=error
            )
            self._metrics.retried()
            await self._give_back(held, delay)

    async def _bury(self, held: _Held, reason: str, error: Exception | None) -> None:
        """Store the message as a dead letter and, only once it is stored, end it."""
        try:
            await self._dead_letters.store(
                held.delivery,
                durable=self.subscription.durable,
                service=self._service,
                reason=reason,
                error=error,
            )
        except MessageBusError as trouble:
            self._note(trouble)
            _logger.exception("dead letter not stored, the message comes again", extra=_told(held))
            if len(self._condemned) < _MAX_CONDEMNED:
                self._condemned[held.key] = (reason, error)
            await self._give_back(held, self.subscription.retry.delay(held.attempt))
            return
        _logger.error("dead letter: %s", reason, extra=_told(held), exc_info=error)
        self._metrics.dead_lettered()
        await self._answer(held, b"+TERM " + reason.encode())

    # -- answers -----------------------------------------------------------------------------

    async def _acknowledge(self, held: _Held) -> None:
        self._metrics.acknowledged()
        await self._answer(held, b"+ACK")

    async def _give_back(self, held: _Held, delay_seconds: float = 0) -> None:
        delay = to_json({"delay": int(delay_seconds * 1e9)}) if delay_seconds else b""
        await self._answer(held, b"-NAK " + delay)

    async def _answer(self, held: _Held, answer: bytes) -> None:
        """Answer once; what the bus does not take any more comes again by itself."""
        if held.answered:
            return
        held.answered = True
        try:
            with translated("answer", subject=held.delivery.subject):
                await self._bus.client.publish(held.reply, answer)
        except MessageBusError as error:
            self._note(error)
            _logger.warning("%s; the message comes again", error, extra=_told(held))

    async def _show_signs_of_life(self) -> None:
        """Tell the server, three times per `ack_wait`, that the held messages are worked on."""
        while True:
            await asyncio.sleep(self.subscription.ack_wait_seconds / 3)
            for held in list(self._held.values()):
                if self._bus.connected and not held.answered:
                    try:
                        await self._bus.client.publish(held.reply, b"+WPI")
                    except Exception as error:  # noqa: BLE001 - the next sign may get through
                        self._note(error)

    # -- ends --------------------------------------------------------------------------------

    async def _give_up(self) -> None:
        """Cancel the handlers, which gives their messages back."""
        await asyncio.sleep(0)  # a task that is cancelled before it began could give nothing back
        for _ in range(_CANCEL_ROUNDS):
            if not self._tasks:
                return
            for task in self._tasks:
                task.cancel()
            # nats-py may swallow a cancellation while it flushes, and a handler may refuse one.
            await asyncio.wait(self._tasks, timeout=_CANCEL_SECONDS)
        _logger.error("%s: %d handlers refuse to end", self.subscription.durable, len(self._tasks))

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless draining begins."""
        try:
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        except TimeoutError:
            pass

    def _enter(self, state: State) -> None:
        if not self._draining.is_set():
            self._state = state

    def _note(self, error: BaseException) -> None:
        self._last_error = f"{type(error).__name__}: {error}"


def is_outage(error: BaseException) -> bool:
    """Tell whether `error` says that a part every message needs is out, for a time."""
    return (
        isinstance(error, InfrastructureError)
        and error.retryable
        and not isinstance(error, UpstreamServiceError | RequestTimeoutError)
    )


class _Metrics:
    """The metrics of one subscriber."""

    def __init__(self, service: str, durable: str) -> None:
        self._labels = (service, durable)
        self.pending = messages_pending.labels(service, durable)
        self._in_progress = messages_in_progress.labels(service, durable)
        self._seconds = message_handling_seconds.labels(service, durable)
        self._lag = message_lag_seconds.labels(service, durable)

    @contextmanager
    def handling(self, delivery: Delivery) -> Iterator[None]:
        if delivery.attempt == 1:
            lag = datetime.now(UTC) - delivery.published_at
            self._lag.observe(max(lag.total_seconds(), 0))
        began = time.perf_counter()
        try:
            with self._in_progress.track_inprogress():
                yield
        finally:
            trace = TraceContext.parse(delivery.headers.get("traceparent"))
            seconds = time.perf_counter() - began
            self._seconds.observe(seconds, exemplar(trace) if trace else None)

    def acknowledged(self) -> None:
        messages_handled_total.labels(*self._labels, Outcome.ACK.value).inc()

    def retried(self) -> None:
        messages_handled_total.labels(*self._labels, Outcome.RETRY.value).inc()
        messages_retried_total.labels(*self._labels).inc()

    def dead_lettered(self) -> None:
        messages_handled_total.labels(*self._labels, Outcome.DEAD_LETTER.value).inc()
        messages_dead_lettered_total.labels(*self._labels).inc()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _chained(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def _told(held: _Held) -> dict[str, object]:
    delivery = held.delivery
    return {
        "subject": delivery.subject,
        "stream": delivery.stream,
        "sequence": delivery.sequence,
        "attempt": held.attempt,
    }
