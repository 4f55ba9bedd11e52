"""Measuring several ways to do one thing, side by side."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING

from benchmarks.outcomes import Comparison, Delays, Growth, Outcome, Sizes, Timing

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Bench", "Clock", "Growth", "Measure", "Run", "Sizes"]

Run = Callable[[int], Awaitable[None]]
"""Does the operation so many times."""

Measure = Callable[[int], Awaitable[list[float]]]
"""Does the operation so many times, and returns the seconds each took."""

Around = Callable[[], AbstractAsyncContextManager[None]]
"""Makes what has to be there while a turn lasts."""

Clock = Callable[[], float]
"""Tells how many seconds of CPU time were used so far."""

_SMOKE_OPERATIONS = 20
_WARM_UP = 10  # the part of a round that each contender runs before the first one
_PIECES = 10  # of a turn of delays, between which the clock is looked at
_DELAY_TURNS = 3  # delays may take the time of so many turns: their tail is what is looked for


class Bench:
    """Runs contenders in turns, so that what disturbs the machine disturbs them alike.

    Every contender warms up; then in each round every one has its turn, another one first each
    time. Garbage is collected before a turn, and as Python likes during it.

    Args:
        repetitions: how many rounds.
        turn_seconds: how long a turn may take. A contender that would need longer, by what its
            warm-up took, is given fewer operations; the table says so.
        smoke: a single tiny round, which shows that everything runs and measures nothing.
        found: is told of each outcome as it comes, the last of `comparisons`.
    """

    def __init__(
        self,
        *,
        repetitions: int,
        turn_seconds: float = 1.5,
        smoke: bool = False,
        found: Callable[[Bench], None] | None = None,
    ) -> None:
        self.repetitions = 1 if smoke else repetitions
        self.turn_seconds = turn_seconds
        self.smoke = smoke
        self.comparisons: list[Outcome] = []
        self._found = found

    def keep(self, outcome: Outcome) -> None:
        """Put what was found among the rest."""
        self.comparisons.append(outcome)
        if self._found is not None:
            self._found(self)

    async def compare(
        self,
        title: str,
        operations: int,
        contenders: Mapping[str, Run],
        *,
        cpu: Mapping[str, Clock] | None = None,
        fewer: Mapping[str, int] | None = None,
        whole: bool = False,
    ) -> None:
        """Measure the contenders, ours first, at so many operations a turn; keep the outcome.

        Args:
            title: what is done.
            operations: how often in a turn.
            contenders: who does it, by name.
            cpu: the clock of each contender's CPU time, where that is not this process's.
            fewer: how often in a turn, of those that are to do it less often.
            whole: the number of operations is part of what is measured; a turn is never cut.
        """
        await self._compare(title, operations, contenders, cpu or {}, fewer or {}, whole=whole)

    async def curve(
        self,
        title: str,
        operations: int,
        axis: str,
        points: Mapping[float, Run],
        *,
        fewer: Mapping[float, int] | None = None,
        around: Mapping[float, Around] | None = None,
    ) -> None:
        """Measure how one operation's cost grows; the first point is what others are held against.

        Args:
            title: what is done.
            operations: how often in a turn.
            axis: what grows.
            points: who does it, by how much of it there is.
            fewer: how often in a turn, at points where it is to be done less often.
            around: what is entered before each turn and left after it, outside of its time.
        """
        names = {place: f"{place:,} {axis}" for place in points}
        await self._compare(
            title,
            operations,
            {names[place]: run for place, run in points.items()},
            {},
            {names[place]: count for place, count in (fewer or {}).items()},
            axis=axis,
            places={name: place for place, name in names.items()},
            around={names[place]: enter for place, enter in (around or {}).items()},
        )

    async def _compare(
        self,
        title: str,
        operations: int,
        contenders: Mapping[str, Run],
        cpu: Mapping[str, Clock],
        fewer: Mapping[str, int],
        *,
        whole: bool = False,
        axis: str = "",
        places: Mapping[str, float] | None = None,
        around: Mapping[str, Around] | None = None,
    ) -> None:
        around = {name: (around or {}).get(name, nullcontext) for name in contenders}
        if self.smoke:
            operations = min(operations, _SMOKE_OPERATIONS)
        turns = {
            name: await self._turn(
                run, min(fewer.get(name, operations), operations), around[name], whole=whole
            )
            for name, run in contenders.items()
        }
        timings: dict[str, list[Timing]] = {name: [] for name in contenders}
        for name in self._in_turns(contenders):
            clock = cpu.get(name, time.process_time)
            async with around[name]():
                timings[name].append(await _timed(contenders[name], turns[name], clock))
        self.keep(Comparison(title, timings, operations, turns, axis, dict(places or {})))

    async def _turn(self, run: Run, operations: int, around: Around, *, whole: bool) -> int:
        """Warm a contender up; return how many operations its turn has."""
        some = max(operations // _WARM_UP, 1)
        fitting = 0.0
        for _ in range(2):  # what the first one pays once is not counted
            async with around():
                began = time.perf_counter()
                await run(some)
                fitting = self.turn_seconds * some / max(time.perf_counter() - began, 1e-9)
            if whole or self.smoke or fitting >= operations:
                return operations
        return max(int(float(f"{fitting:.1g}")), 1)

    def _in_turns(self, contenders: Mapping[str, object]) -> list[str]:
        """Return the names in the order of their turns, over all rounds."""
        names = list(contenders)
        return [
            names[(repetition + turn) % len(names)]
            for repetition in range(self.repetitions)
            for turn in range(len(names))
        ]

    async def delays(self, title: str, operations: int, contenders: Mapping[str, Measure]) -> None:
        """Have each contender tell how long each of so many operations took, in turns; keep it.

        A turn that takes long ends before it has them all.
        """
        if self.smoke:
            operations = min(operations, _SMOKE_OPERATIONS)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for name in self._in_turns(contenders):
            left = operations
            ends = time.monotonic() + _DELAY_TURNS * self.turn_seconds
            while left and (left == operations or time.monotonic() < ends):
                some = min(max(operations // _PIECES, 1), left)
                seconds[name] += [_kept(delay) for delay in await contenders[name](some)]
                left -= some
        self.keep(Delays(title, seconds))


async def _timed(run: Run, operations: int, clock: Clock) -> Timing:
    gc.collect()
    cpu, began = clock(), time.perf_counter()
    await run(operations)
    seconds, cpu_seconds = time.perf_counter() - began, clock() - cpu
    return Timing(_kept(seconds / operations), _kept(cpu_seconds / operations))


def _kept(seconds: float) -> float:
    """Return as many digits as are worth keeping."""
    return float(f"{seconds:.4g}")
