"""Reading a stream: every message is handed to the pipeline, and seen through to its end."""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from time import monotonic as _now  # the clock of the event loop
from typing import TYPE_CHECKING

from shared.errors import MessageBusError
from shared.legacy.table import handed_on
from shared.messaging.connection.watchdog import HEARTBEATS, IN_PROGRESS, Watched
from shared.messaging.consuming.delivery import REPLAY_FOR, SCHEDULE, AckSubject, as_sent
from shared.messaging.consuming.handling import ATTEMPTS_FAILED, EXHAUSTED, HOPELESS, Handling
from shared.messaging.consuming.in_flight import (
    Batched,
    InFlight,
    InFlightMessage,
    InTurn,
    MessageState,
)
from shared.messaging.consuming.metrics import SubscriberMetrics
from shared.messaging.consuming.ordering import InOrder
from shared.messaging.consuming.pipeline import is_outage
from shared.messaging.consuming.pull import EXPIRES_SECONDS, Pull, PullLostError
from shared.messaging.consuming.retry import RetryPolicy
from shared.messaging.consuming.subscription import State, SubscriberStatus, Subscription
from shared.messaging.streams.consumers import (
    can_pin,
    ensure_consumer,
    pin_seconds,
    prefetch,
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

# How long cancelled handlers get, and how often they are told.
_CANCEL_SECONDS = 1.0
_CANCEL_ROUNDS = 5

# How long one task may go from message to message before others have their turn.
_TURN_SECONDS = 0.002


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
    counted: the message keeps its place and is tried again, see `RetryPolicy.outage_seconds`.
    After `outage_threshold` of them in a row nothing more is fetched, and one message at a time
    tries, until the outage is over.

    Its backpressure: it asks for no more messages than it has free places, and the rest waits at
    the server. There are `concurrency` places, so many batches with `batch`, and with `order_by`
    more than handlers (the prefetch), for messages that wait until those of their key are done.
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
        self._metrics = SubscriberMetrics(service, subscription.durable)
        self._draining = asyncio.Event()
        self._in_flight = InFlight(subscription.ack_wait_seconds)
        self._handling = Handling(
            bus,
            subscription,
            in_flight=self._in_flight,
            service=service,
            version=version,
            metrics=self._metrics,
            draining=self._draining,
            noted=self._note,
        )
        self._context = copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn: _Turn | None = None
        self._giving_up = False
        self._order: InOrder | None = None
        self._queue: InTurn | Batched | InOrder
        self._places = subscription.concurrency
        if subscription.order_by is not None:
            self._order = self._queue = InOrder(
                bus,
                subscription,
                subscription.order_by,
                in_flight=self._in_flight,
                ready=self._launch,
                give_back=self._give_back,
            )
            self._places = prefetch(subscription)
        elif subscription.batch is not None:
            self._queue = Batched(subscription.batch, ready=self._launch)
            self._places *= subscription.batch.size
        else:
            self._queue = InTurn()
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
        self._watched = Watched(
            service,
            subscription.durable,
            ack_wait_seconds=subscription.ack_wait_seconds,
            messages=self._in_flight.need_heartbeat,
            tasks=self._tasks,
        )

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
            in_flight=len(self._in_flight),
            lag=self._lag,
            last_error=self._last_error,
            circuit=breaker.state if breaker else Circuit.CLOSED,
        )

    async def run(self) -> None:
        """Read and handle until drained.

        Cancelled, it cancels its handlers and gives their messages back. Cancelled again, it waits
        no longer for those that refuse to end.

        Raises:
            RuntimeError: It was run before.
        """
        if self._running is not None:
            raise RuntimeError(f"{self.subscription.durable} runs already, or did")
        self._running = asyncio.current_task()
        forget = self._bus.on_connection(self._connection_changed)
        heartbeats = asyncio.create_task(self._send_heartbeats())
        self._bus.watchdog.watch(self._watched)
        try:
            await self._read()
            self._read_to_end.set()
            await self._stopped.wait()
        finally:
            forget()
            try:
                await self._give_up()
            finally:  # cancelled once more, it waits for no handler, and leaves nothing behind
                if self._order is not None:
                    self._order.close()
                heartbeats.cancel()
                self._bus.watchdog.leave(self._watched)
                self._state = State.STOPPED
                self._read_to_end.set()
                self._stopped.set()

    async def drain(self, grace_seconds: float) -> None:
        """Graceful shutdown: stop fetching, let the running handlers finish, and end `run`.

        What arrived and was not begun is given back at once. Handlers that still run after
        `grace_seconds` are cancelled and their messages given back. Neither counts as an attempt. A
        second call waits for the end of the first. One that is cancelled cancels the handlers.
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
            await self._finish(grace_seconds)
            await self._give_up()
        finally:  # also when it is cancelled: then `run` gives up
            self._stopped.set()

    async def _finish(self, grace_seconds: float) -> None:
        """Let the handlers finish, for so long."""
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

    def pause(self) -> None:
        """Stop fetching until `resume`; what is here already is seen through.

        The consumer stays, and other replicas go on. A second call does nothing. It is not
        remembered over a restart.
        """
        if self._resumed.is_set():
            self._resumed.clear()
            self._metrics.paused.set(1)
            _logger.info("%s: paused", self.subscription.durable)
            self._wake()

    def resume(self) -> None:
        """Fetch again; without a pause this does nothing."""
        if not self._resumed.is_set():
            self._resumed.set()
            self._metrics.paused.set(0)
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
        await self._handling.delayed.look_up(self._stream)
        pinned = self._order is not None and can_pin(self._bus)
        if self._order is not None:
            await self._give_back(self._order.leave(pinned=pinned))
        async with Pull(
            self._bus.client,
            self._stream,
            self.subscription.durable,
            receive=self._receive,
            pinned=pinned,
            expires_seconds=pin_seconds(self.subscription) / HEARTBEATS
            if pinned
            else EXPIRES_SECONDS,
        ) as pull:
            self._pull = pull
            try:
                self._enter(State.RUNNING)
                while not self._draining.is_set() and not self.paused:
                    if self._order is not None and pull.pin is None and self._order.pin is not None:
                        await self._give_back(self._order.leave(pinned=pinned))
                    self._metrics.pending.set(self._lag)
                    if (free := self._wanted(pull)) > 0:
                        await pull.request(free)
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

    async def _give_back(self, unbegun: list[InFlightMessage]) -> None:
        """Give back what is not begun: of an order, another replica may have the pin now."""
        self._in_flight.forget(unbegun)
        await self._handling.give_back_unspent(unbegun)
        self._wake()

    def _wanted(self, pull: Pull) -> int:
        """Return how many messages to ask for now: as many as there are free places, or none.

        They are asked for half of the places at a time.
        """
        places = self._places
        breaker = self._handling.breaker
        if self._order is None and breaker is not None and breaker.state is not Circuit.CLOSED:
            # One message has to be here to try whether the outage is over.
            places = min(places, 1)
        # Of an ordered consumer the server has no more than our places unacknowledged in all
        # (`max_ack_pending`), over all replicas: what comes again from another always finds one.
        free = places - len(self._in_flight) - pull.outstanding
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
            self._metrics.pending.set(0)
        key = (ack.sequence, ack.stored_at_ns)
        order = self._order
        if order is not None and self._pull is not None:
            order.came(ack.number, first=ack.attempt == 1, pin=self._pull.pin)
        if self._in_flight.came_again(key, ack, message.reply):
            return
        headers, carried = as_sent(message.headers)
        arrived = InFlightMessage(
            message.subject, message.data, headers, ack, message.reply, carried=carried
        )
        durable, sent = self.subscription.durable, message.headers or {}
        ours = sent.get(REPLAY_FOR, durable) == durable and SCHEDULE not in sent  # and due
        if ours and self._in_flight.add(arrived):
            self._queue.add(arrived)
            self._launch()
            return
        self._handling.acknowledgements.acknowledge(arrived)
        if order is not None:
            order.drop(key)

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

    def _start(self, messages: list[InFlightMessage], turn: _Turn) -> None:
        # In a context of its own: what a handler left in its own is not for the next.
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._work(messages, turn), context=self._context.copy())
        self._tasks.add(task)

    def _next_for_a_place(self) -> list[InFlightMessage]:
        free = len(self._tasks) < self.subscription.concurrency
        return self._next() if free and not self._giving_up else []

    def _next(self) -> list[InFlightMessage]:
        """Return the message, or the batch, that begins now; nothing if there is none."""
        while messages := self._queue.take(at_once=self._draining.is_set()):
            begun: list[InFlightMessage] = []
            for message in messages:
                if self._in_flight.begin(message):
                    begun.append(message)
                else:
                    self._done(message)
            if begun:
                return begun
        return []

    async def _work(self, messages: list[InFlightMessage], turn: _Turn) -> None:
        task = asyncio.current_task()
        if task is None:  # pragma: no cover - it is begun as a task
            raise RuntimeError("messages are handled in tasks")
        clean, began = copy_context(), _now()
        try:
            while messages:
                try:
                    if self.subscription.batch is None:
                        await self._handling.one(messages[0])
                    else:
                        await self._handling.many(messages)
                finally:
                    for message in messages:
                        self._done(message)
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
        if self._queue:
            asyncio.get_running_loop().call_soon(self._launch, context=self._context)
        if self._pull is not None and self._wanted(self._pull) > 0:
            self._pull.wake()

    def _done(self, message: InFlightMessage) -> None:
        if message.state is MessageState.PAUSED:
            asyncio.get_running_loop().call_later(message.pause_seconds, self._return, message)
            return
        over = self._in_flight.finish(message)
        if self._order is not None:
            self._order.done(message, over=over)

    def _return(self, message: InFlightMessage) -> None:
        """Give a message back whose pause is over."""
        self._handling.give_back(message)
        self._done(message)
        self._go_on()

    async def _send_heartbeats(self) -> None:
        """Tell the server, three times per `ack_wait`, that messages are worked on."""
        ack_wait = self.subscription.ack_wait_seconds
        while True:
            await asyncio.sleep(ack_wait / HEARTBEATS)
            self._watched.beat_at = _now()
            for message in self._in_flight.need_heartbeat():
                if not self._bus.connected or message.ended:
                    continue
                try:
                    await self._bus.client.publish(message.reply, IN_PROGRESS)
                except Exception as error:  # noqa: BLE001 - the next heartbeat may get through
                    self._note(error)
                else:
                    message.heartbeat_at = _now()
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
        for message in self._in_flight.paused():
            self._return(message)
        if self._order is not None:
            self._order.close()
        await self._handling.give_back_unspent(self._in_flight.take_unbegun())
        await self._handling.acknowledgements.sent()

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
