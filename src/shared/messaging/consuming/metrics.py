"""The metrics of one subscriber, its labels looked up once."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from shared.errors import Outcome
from shared.metrics import (
    message_handling_seconds,
    message_lag_seconds,
    messages_dead_lettered_total,
    messages_handled_total,
    messages_in_progress,
    messages_pending,
    messages_retried_total,
    subscriber_circuit_open,
    subscriber_paused,
)
from shared.resilience import Circuit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.messaging.consuming.delivery import Delivery


# `00-<trace id>-<span id>-<flags>` (W3C Trace Context, 3.2).
_TRACEPARENT_LENGTH = 55
_TRACE_ID = slice(3, 35)


class SubscriberMetrics:
    """What a subscriber tells of itself."""

    def __init__(self, service: str, durable: str) -> None:
        labels = (service, durable)
        self.pending = messages_pending.labels(*labels)
        self.paused = subscriber_paused.labels(*labels)
        self.circuit_open = subscriber_circuit_open.labels(*labels)
        self._in_progress = messages_in_progress.labels(*labels)
        self._seconds = message_handling_seconds.labels(*labels)
        self._lag = message_lag_seconds.labels(*labels)
        self._handled = {
            outcome: messages_handled_total.labels(*labels, outcome.value) for outcome in Outcome
        }
        self._retried = messages_retried_total.labels(*labels)
        self._dead = messages_dead_lettered_total.labels(*labels)
        self._running = self._told = 0
        self._lags: list[tuple[float, str | None]] = []
        self._took: list[tuple[float, str | None]] = []
        self._outcomes: list[Outcome] = []
        self._telling = False

    def began(self, deliveries: Sequence[Delivery]) -> float:
        """Note that an attempt begins; return what `ended` wants to know of it."""
        self._running += len(deliveries)
        now = time.time()
        for delivery in deliveries:
            if delivery.attempt == 1:
                self._lags.append((max(now - delivery.stored_at_seconds, 0), None))
        self._tell_soon()
        return time.perf_counter()

    def ended(self, deliveries: Sequence[Delivery], began: float) -> None:
        """Note that the attempt is over."""
        seconds = time.perf_counter() - began
        self._running -= len(deliveries)
        for delivery in deliveries:
            self._took.append((seconds, delivery.headers.get("traceparent")))
        self._tell_soon()

    def done(self, outcome: Outcome) -> None:
        """Note what became of a message after an attempt."""
        self._outcomes.append(outcome)
        self._tell_soon()

    def _tell_soon(self) -> None:
        if not self._telling:
            self._telling = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        """Write down what was noted during one turn of the event loop, under one lock each."""
        self._telling = False
        if self._running != self._told:
            self._in_progress.inc(self._running - self._told)
            self._told = self._running
        if self._lags:
            self._lag.observe_all(self._lags, _exemplar)
            self._lags.clear()
        if self._took:
            self._seconds.observe_all(self._took, _exemplar)
            self._took.clear()
        for outcome, handled in self._handled.items():
            count = self._outcomes.count(outcome)
            if not count:
                continue
            handled.inc(count)
            if outcome is Outcome.RETRY:
                self._retried.inc(count)
            elif outcome is Outcome.DEAD_LETTER:
                self._dead.inc(count)
        self._outcomes.clear()

    def circuit(self, state: Circuit) -> None:
        """Note that the circuit changed."""
        self.circuit_open.set(state is not Circuit.CLOSED)


def _exemplar(traceparent: str | None) -> dict[str, str] | None:
    """Name the trace a slow bucket leads to; what is not a trace id is left out."""
    if traceparent is None or len(traceparent) < _TRACEPARENT_LENGTH:
        return None
    return {"trace_id": traceparent[_TRACE_ID]}
