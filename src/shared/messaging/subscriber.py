"""The engine under every handler: reads a stream and sees each message through to its end."""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from dataclasses import replace
from time import monotonic as _now  # the clock of the event loop
from typing import TYPE_CHECKING

from shared.errors import MessageBusError
from shared.legacy.table import handed_on
from shared.messaging.consuming.acknowledgements import ACK, IN_PROGRESS
from shared.messaging.consuming.delayed import SCHEDULE, as_sent
from shared.messaging.consuming.delivery import AckSubject, Delivery
from shared.messaging.consuming.handling import (
    ATTEMPTS_FAILED,
    EXHAUSTED,
    HOPELESS,
    Handling,
    is_outage,
)
from shared.messaging.consuming.in_flight import Held, Key
from shared.messaging.consuming.metrics import Measures
from shared.messaging.consuming.ordering import InOrder
from shared.messaging.consuming.prefetch import Batched, InTurn
from shared.messaging.consuming.pull import EXPIRES_SECONDS, Pull, PullLostError
from shared.messaging.consuming.recently_handled import Remembered
from shared.messaging.consuming.retry import RetryPolicy
from shared.messaging.consuming.subscription import State, SubscriberStatus, Subscription
from shared.messaging.dead_letters.store import REPLAY_FOR
from shared.messaging.streams.consumers import (
    can_pin,
    ensure_consumer,
    look_ahead,
    pin_seconds,
    unpin,
    withdraw,
)
from shared.resilience import Circuit

if TYPE_CHECKING:
    from nats.aio.msg import Msg

    from shared.legacy.messaging.event_subscriber import JetStreamEventSubscriber
    from shared.messaging.connection.bus import Bus

__all__ = [
    "ATTEMPTS_FAILED",
    "EXHAUSTED",
    "HOPELESS",
    "JetStreamEventSubscriber",
    "Subscriber",
    "is_outage",
]

_logger = logging.getLogger(__name__)

# How soon to look again for a stream that is not there, or a server that is away.
_HEALING = RetryPolicy(first_delay_seconds=0.1, max_delay_seconds=5.0)

# How many handled messages are known again, should their acknowledgement have been lost.
_MAX_REMEMBERED = 10_000

# How long cancelled handlers get, and how often they are told.
_CANCEL_SECONDS = 1.0
_CANCEL_ROUNDS = 5

# How long one task may go from message to message before others have their turn.
_TURN_SECONDS = 0.002

# How often a sign of life is due within `ack_wait`, and a request within the time of a pin.
_SIGNS = 3


class _Turn:
    """The first step of a task that takes message after message.

    `over` once the event loop went on, since its handler waits or it has `finished`.
    """

    __slots__ = ("finished", "over")

    def __init__(self) -> None:
        self.over = self.finished = False


class Subscriber:
    """Hands the messages of one subscription to its handler until drained.

    Every message ends in one of three ways: acknowledged, given back for another attempt, or stored
    as a dead letter. Whatever happens to the connection, the consumer or the stream, reading goes
    on as soon as it can; a stream that is not there yet is waited for.

    When the attempts of the policy are used up, or the error says that no attempt can help, the
    message is stored among the dead letters and, once the server has it there, ended. A message
    that comes after its last attempt has lost a process in it: it becomes a dead letter unseen by
    the handler, since it may be what killed the process. A message that was given back without an
    attempt of its own, by a drain or with a lost connection, has its attempts still before it.

    While an error says that the database, the bus or another part every message needs is out
    (a retryable `InfrastructureError`, except of another service's making), the attempt is not
    counted: the message keeps its place and is tried again, see `RetryPolicy.patience_seconds`.
    After `outage_threshold` of them in a row nothing more is fetched, and one message at a time
    tries, until the outage is over.
    """

    def __init__(
        self,
        bus: Bus,
        subscription: Subscription,
        *,
        service: str,
        version: str | None = None,
    ) -> None:
        self.subscription = subscription
        self._bus = bus
        self._stream = subscription.stream or ""
        self._measures = Measures(service, subscription.durable)
        self._draining = asyncio.Event()
        self._handling = Handling(
            bus,
            subscription,
            service=service,
            version=version,
            measures=self._measures,
            draining=self._draining,
            noted=self._note,
        )
        self._context = copy_context()
        self._held: dict[Key, Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn: _Turn | None = None
        self._giving_up = False
        self._remembered = Remembered(_MAX_REMEMBERED)
        self._order: InOrder | None = None
        self._intake: InTurn | Batched | InOrder
        self._places = subscription.concurrency
        if subscription.order_by is not None:
            self._order = self._intake = InOrder(
                bus,
                subscription,
                subscription.order_by,
                held=self._held,
                ready=self._launch,
                give_back=self._give_back,
            )
            self._places = look_ahead(subscription)
        elif subscription.batch is not None:
            self._intake = Batched(subscription.batch, ready=self._launch)
            self._places *= subscription.batch.size
        else:
            self._intake = InTurn()
        self._state = State.WAITING
        self._last_error: str | None = None
        self._lag = 0
        self._pull: Pull | None = None
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._reconnected = asyncio.Event()
        self._read_to_end = asyncio.Event()
        self._stopped = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether it reads or tries to; False before `run`, after it, and if its loop died."""
        return self._running is not None and not self._running.done() and not self._stopped.is_set()

    @property
    def paused(self) -> bool:
        """Whether it was told to pause."""
        return not self._resumed.is_set()

    @property
    def status(self) -> SubscriberStatus:
        """Where it stands now."""
        breaker = self._handling.breaker
        return SubscriberStatus(
            state=self._state,
            stream=self._stream,
            subject=self.subscription.subject,
            durable=self.subscription.durable,
            in_flight=len(self._held),
            lag=self._lag,
            last_error=self._last_error,
            circuit=breaker.state if breaker else Circuit.CLOSED,
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
        keeper = asyncio.create_task(self._keep())
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
        `grace_seconds` are cancelled and their messages given back. Neither counts as an attempt. A
        second call waits for the end of the first.
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
        if self._handling.breaker is not None:
            self._handling.breaker.stop()
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

    def pause(self) -> None:
        """Stop fetching until `resume`; what is here already is seen through.

        The consumer stays, and other replicas go on. A second call does nothing. It is not
        remembered over a restart.
        """
        if self._resumed.is_set():
            self._resumed.clear()
            self._measures.paused.set(1)
            _logger.info("%s: paused", self.subscription.durable)
            self._wake()

    def resume(self) -> None:
        """Fetch again; without a pause this does nothing."""
        if not self._resumed.is_set():
            self._resumed.set()
            self._measures.paused.set(0)
            _logger.info("%s: resumed", self.subscription.durable)

    # -- reading -----------------------------------------------------------------------------

    async def _read(self) -> None:
        """Keep a pull standing until draining begins, through whatever happens to it."""
        failures = 0
        while not self._draining.is_set():
            self._reconnected.clear()
            if self.paused:
                self._enter(State.PAUSED)
                await _either(self._resumed, self._draining)
                continue
            try:
                failures = 0 if await self._read_once() else failures + 1
            except Exception as error:
                failures += 1
                self._note(error)
                if not isinstance(error, MessageBusError):
                    _logger.exception("%s: reading failed", self.subscription.durable)
            if failures:
                self._enter(State.WAITING)
                await self._pause(_HEALING.delay(failures))

    async def _read_once(self) -> bool:
        """Read through one pull until it is lost or not wanted; return whether it ever worked."""
        await ensure_consumer(self._bus, self.subscription)
        await self._handling.later.look_up(self._stream)
        pinned = self._order is not None and can_pin(self._bus)
        if self._order is not None:
            await self._hand_on(self._order, pinned=pinned)
        async with Pull(
            self._bus.client,
            self._stream,
            self.subscription.durable,
            receive=self._receive,
            pinned=pinned,
            expires_seconds=pin_seconds(self.subscription) / _SIGNS if pinned else EXPIRES_SECONDS,
        ) as pull:
            self._pull = pull
            try:
                self._enter(State.RUNNING)
                while not self._draining.is_set() and not self.paused:
                    if self._order is not None and pull.pin is None and self._order.pin is not None:
                        await self._hand_on(self._order, pinned=pinned)
                    await self._refill(pull)
                    await pull.wait()
            except PullLostError as lost:
                self._note(lost)
            finally:
                self._pull = None
        if self._draining.is_set() or self.paused:
            if pinned:
                await self._make_way(pull)
            return True
        if not pull.heard:
            await self._bus.suspect()
        return pull.heard

    async def _hand_on(self, order: InOrder, *, pinned: bool) -> None:
        """Give back what is not begun, since another replica may have the word now."""
        await self._give_back(order.leave(pinned=pinned))

    async def _give_back(self, unbegun: list[Held]) -> None:
        for held in unbegun:
            del self._held[held.key]
        await self._handling.give_back_unspent(unbegun)
        self._wake()

    async def _refill(self, pull: Pull) -> None:
        """Ask for as many messages as there are free places, half of them at a time."""
        self._measures.pending.set(self._lag)
        free = self._wanted(pull)
        if free > 0:
            await pull.request(free)

    def _wanted(self, pull: Pull) -> int:
        """Return how many messages to ask for now."""
        places = self._places
        breaker = self._handling.breaker
        if self._order is None and breaker is not None and breaker.state is not Circuit.CLOSED:
            # One message has to be here to try whether the outage is over.
            places = min(places, 1)
        # Of an ordered consumer the server has no more than our places unacknowledged in all
        # (`max_ack_pending`), whoever holds them: what comes again from another always finds one.
        free = places - len(self._held) - pull.outstanding
        return free if 2 * free >= places or not pull.outstanding else 0

    async def _make_way(self, pull: Pull) -> None:
        """Let another replica take an ordered subscription over without waiting for our silence."""
        leave = withdraw if pull.pin is None else unpin
        try:
            await leave(self._bus, self.subscription)
        except MessageBusError as error:
            _logger.info("%s; another replica takes over after a while", error)

    def _receive(self, message: Msg) -> None:
        ack = AckSubject.parse(message.reply)
        self._lag = ack.pending
        if not ack.pending:
            self._measures.pending.set(0)
        key = (ack.sequence, ack.stored_at_ns)
        self._handling.waiting.pop(key, None)
        if self._order is not None and self._pull is not None:
            self._order.came(ack.number, first=ack.attempt == 1, pin=self._pull.pin)
        held = self._held.get(key)
        if held is not None and not held.answered:
            # We were cut off for longer than ack_wait and get again what we still work on.
            held.attempt, held.reply = held.carried + ack.attempt, message.reply
            held.delivery = replace(held.delivery, attempt=held.attempt)
            held.number = ack.number
            held.sign_at, held.redelivered = _now(), True
            return
        over = held is not None and not held.comes_again
        headers, carried = as_sent(message.headers)
        attempt = carried + ack.attempt
        held = Held(
            key,
            Delivery(
                subject=message.subject,
                body=message.data,
                headers=headers,
                stream=ack.stream,
                sequence=ack.sequence,
                attempt=attempt,
                published_at=ack.stored_at,
            ),
            attempt,
            message.reply,
            now := _now(),
            now,
            carried,
            ack.number,
        )
        durable = self.subscription.durable
        if (
            (message.headers or headers).get(REPLAY_FOR, durable) != durable
            or SCHEDULE in headers
            # Its acknowledgement was lost, or is not confirmed yet: the handler has seen it.
            or (ack.attempt > 1 and key in self._remembered)
            or over
        ):
            self._handling.answers.give(held, ACK)
            if self._order is not None:
                self._order.drop(key)
            return
        self._held[key] = held
        self._intake.add(held)
        self._launch()

    def _connection_changed(self) -> None:
        self._reconnected.set()
        if self._pull is not None:
            self._pull.lose("the connection was lost for a while")

    def _wake(self) -> None:
        if self._pull is not None:
            self._pull.wake()

    # -- handling ----------------------------------------------------------------------------

    def _launch(self) -> None:
        """Begin what may begin, as far as there are places to run.

        At first it is one task. It takes message after message for as long as their handlers wait
        for nothing; as soon as one does, all others begin as well, each in a task of its own.
        """
        if self._turn is None and (messages := self._next_for_a_place()):
            self._turn = _Turn()
            self._start(messages, self._turn)
            asyncio.get_running_loop().call_soon(self._end_turn, self._turn, context=self._context)

    def _end_turn(self, turn: _Turn) -> None:
        """Go on behind the first step of a task: it came to its end, or its handler waits."""
        self._turn = None
        turn.over = True
        if turn.finished:
            self._launch()
            return
        while messages := self._next_for_a_place():
            self._start(messages, turn)

    def _start(self, messages: list[Held], turn: _Turn) -> None:
        # In a context of its own: what a handler left in its own is not for the next.
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._work(messages, turn), context=self._context.copy())
        self._tasks.add(task)

    def _next_for_a_place(self) -> list[Held]:
        free = len(self._tasks) < self.subscription.concurrency
        return self._next() if free and not self._giving_up else []

    def _next(self) -> list[Held]:
        """Return the message, or the batch, that begins now; nothing if there is none."""
        while messages := self._intake.take(at_once=self._draining.is_set()):
            now = _now()
            messages = [held for held in messages if not self._lapsed(held, now)]
            if messages:
                for held in messages:
                    held.begun = True
                return messages
        return []

    async def _work(self, messages: list[Held], turn: _Turn) -> None:
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - it is begun as a task
            raise RuntimeError("messages are handled in tasks")
        clean, began = copy_context(), _now()
        try:
            while messages:
                try:
                    if self.subscription.batch is None:
                        await self._handling.one(messages[0], task)
                    else:
                        await self._handling.many(messages, task)
                finally:
                    for held in messages:
                        self._done(held)
                if (
                    turn.over
                    or self._giving_up
                    or task.cancelling()
                    or _now() - began > _TURN_SECONDS
                    or copy_context() != clean
                ):
                    break
                messages = self._next()
        finally:
            turn.finished = True
            self._tasks.discard(task)
            self._go_on()

    def _go_on(self) -> None:
        """Fill the place that became free: with what is here, and with what is asked for."""
        if self._intake:
            asyncio.get_running_loop().call_soon(self._launch, context=self._context)
        if self._pull is not None and self._wanted(self._pull) > 0:
            self._pull.wake()

    def _done(self, held: Held) -> None:
        if held.pause_seconds is not None and not held.answered:
            asyncio.get_running_loop().call_later(held.pause_seconds, self._return, held)
            return
        over = held.answered and not held.comes_again
        if over:
            self._remembered.add(held.key)
        if self._held.get(held.key) is held:
            del self._held[held.key]
        if self._order is not None:
            self._order.done(held, over=over)

    def _return(self, held: Held) -> None:
        """Give a message back whose pause is over."""
        held.pause_seconds = None
        self._handling.again(held)
        self._done(held)
        self._go_on()

    def _lapsed(self, held: Held, now: float) -> bool:
        """Forget a message that another replica may have by now, and tell whether it is one.

        This process stood still, or was cut off, for longer than the server waits.
        """
        if now - held.sign_at < self.subscription.ack_wait_seconds:
            return False
        held.answered = held.comes_again = True
        self._done(held)
        return True

    async def _keep(self) -> None:
        """Tell the server, three times per `ack_wait`, that the held messages are worked on."""
        ack_wait = self.subscription.ack_wait_seconds
        while True:
            await asyncio.sleep(ack_wait / _SIGNS)
            for held in list(self._held.values()):
                # A sign that comes too late would take the message from who has it by now.
                if self._bus.connected and not held.answered and _now() - held.sign_at < ack_wait:
                    try:
                        await self._bus.client.publish(held.reply, IN_PROGRESS)
                    except Exception as error:  # noqa: BLE001 - the next sign may get through
                        self._note(error)
                    else:
                        held.sign_at = _now()
            if self._order is not None:
                self._order.look_for_lost()

    # -- ends --------------------------------------------------------------------------------

    async def _give_up(self) -> None:
        """Cancel the handlers, which gives their messages back, and give back the others."""
        self._giving_up = True
        await asyncio.sleep(0)  # a task that is cancelled before it began could give nothing back
        for _ in range(_CANCEL_ROUNDS):
            if not self._tasks:
                break
            for task in self._tasks:
                task.cancel()
            # nats-py may swallow a cancellation while it flushes, and a handler may refuse one.
            await asyncio.wait(self._tasks, timeout=_CANCEL_SECONDS)
        else:
            _logger.error(
                "%s: %d handlers refuse to end", self.subscription.durable, len(self._tasks)
            )
        waiting = [held for held in self._held.values() if held.pause_seconds is not None]
        for held in waiting:
            self._return(held)
        if self._order is not None:
            self._order.close()
        unbegun = [held for held in self._held.values() if not held.begun]
        for held in unbegun:
            del self._held[held.key]
        await self._handling.give_back_unspent(unbegun)
        await self._handling.answers.sent()

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless draining begins or the connection is there again."""
        try:
            async with asyncio.timeout(seconds):
                await _either(self._draining, self._reconnected)
        except TimeoutError:
            pass

    def _enter(self, state: State) -> None:
        if not self._draining.is_set():
            self._state = state

    def _note(self, error: BaseException) -> None:
        self._last_error = f"{type(error).__name__}: {error}"


async def _either(*events: asyncio.Event) -> None:
    """Wait until one of the events is set."""
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


__getattr__, __dir__ = handed_on(__name__)
