"""Slow statements: a log line each, and on request the plan PostgreSQL had for it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TYPE_CHECKING

from shared.context import current
from shared.metrics import database_slow_queries_total

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg

    Connect = Callable[[], Awaitable[asyncpg.Connection[asyncpg.Record]]]


_logger = logging.getLogger(__name__)

_PLAN_TIMEOUT_SECONDS = 5.0
_PLAN_AGAIN_SECONDS = 60.0
_MAX_PLAN = 16_384
_MAX_STATEMENTS = 500

# A statement that only reads, as far as its words tell: WITH may write, and so may FOR UPDATE.
_READS = re.compile(r"\s*SELECT\b(?!.*\b(?:INTO|FOR\s+(?:NO\s+KEY\s+)?(?:UPDATE|SHARE|KEY))\b)")
_COSTS = re.compile(r"\(cost=[^()]*\)")
_VALUE = re.compile(r"'(?:[^']|'')*'|(?<![\w.$\"])-?\d+(?:\.\d+)?(?![\w\"])")


class SlowQueries:
    """Logs statements that take too long, with the trace they belong to and without their values.

    With ``plan`` the plan of a SELECT follows in a line of its own. It is asked for with the same
    values, in another connection that reads only and for five seconds at most; for one statement
    at a time, and for the same one once a minute. The statement is explained and not run again.
    Of its values the plan shows none.

    Args:
        service: label of the counter.
        threshold_seconds: what is slow.
        connect: opens the connection for plans; None asks for none.
    """

    def __init__(
        self, service: str, *, threshold_seconds: float, connect: Connect | None = None
    ) -> None:
        self.threshold_seconds = threshold_seconds
        self._connect = connect
        self._counter = database_slow_queries_total.labels(service)
        self._explained: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Give up the plan that is asked for."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def record(self, statement: str, parameters: object, seconds: float) -> None:
        """Log a statement that took so long; ``parameters`` are None for several of one kind."""
        self._counter.inc()
        _logger.warning(
            "slow statement",
            extra={"statement": statement, "duration_ms": round(seconds * 1000, 3)},
        )
        if self._connect is not None and isinstance(parameters, tuple):
            self._request_plan(statement, parameters)

    def _request_plan(self, statement: str, parameters: tuple[object, ...]) -> None:
        now = time.monotonic()
        if self._task is not None or not _READS.match(statement.replace("\n", " ")):
            return
        if now - self._explained.get(statement, -_PLAN_AGAIN_SECONDS) < _PLAN_AGAIN_SECONDS:
            return
        if len(self._explained) >= _MAX_STATEMENTS:
            self._explained.clear()
        self._explained[statement] = now
        self._task = asyncio.get_running_loop().create_task(self._explain(statement, parameters))
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.info("no plan of a slow statement: %s", type(error).__name__)

    async def _explain(self, statement: str, parameters: tuple[object, ...]) -> None:
        if self._connect is None:
            return
        context = current()
        connection = await self._connect()
        try:
            async with (
                asyncio.timeout(_PLAN_TIMEOUT_SECONDS),
                connection.transaction(readonly=True),
            ):
                if context is not None and context.tenant_id is not None:
                    await connection.execute(
                        "SELECT set_config('glam.merchant_id', $1, true)", context.tenant_id
                    )
                rows = await connection.fetch(f"EXPLAIN {statement}", *parameters)
        finally:
            connection.terminate()
        plan = hide_values("\n".join(row[0] for row in rows))
        _logger.warning(
            "plan of a slow statement", extra={"statement": statement, "plan": plan[:_MAX_PLAN]}
        )


def hide_values(plan: str) -> str:
    """Return a plan without the values that its conditions name; costs stay.

    >>> hide_values("  Filter: ((email = 'me@x.org'::text) AND (age > 41) AND (c1 = 2))")
    "  Filter: ((email = '?'::text) AND (age > ?) AND (c1 = ?))"
    """
    lines = []
    for line in plan.splitlines():
        costs = _COSTS.search(line)
        if costs is None:
            lines.append(_VALUE.sub(lambda found: "'?'" if found[0][0] == "'" else "?", line))
        else:
            lines.append(line)
    return "\n".join(lines)
