"""Measuring several ways to do one thing, side by side."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Run = Callable[[int], Awaitable[None]]
"""Does the operation so many times."""

Measure = Callable[[int], Awaitable[list[float]]]
"""Does the operation so many times, and returns the seconds each took."""

Clock = Callable[[], float]
"""Tells how many seconds of CPU time were used so far."""

_SMOKE_OPERATIONS = 20
_WARM_UP = 10  # the part of a round that each contender runs before the first one


@dataclass(frozen=True, slots=True)
class Timing:
    """One round of one contender: seconds per operation, and seconds of this process's CPU."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One operation as each contender did it, round by round; the first contender is ours."""

    title: str
    timings: Mapping[str, Sequence[Timing]]

    def table(self) -> Table:
        """Draw a row for each contender: microseconds per operation, and how ours compare."""
        table = Table(title=self.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        table.add_column("µs per operation", width=40)
        for heading in ("median", "min - max", "CPU", "ours / peer", "of CPU"):
            table.add_column(heading, justify="right", min_width=10)
        ours = next(iter(self.timings.values()))
        for name, timings in self.timings.items():
            seconds = [timing.seconds for timing in timings]
            table.add_row(
                name,
                _micro(median(seconds)),
                f"{_micro(min(seconds))} - {_micro(max(seconds))}",
                _micro(median(timing.cpu_seconds for timing in timings)),
                *(("", "") if timings is ours else _ratios(ours, timings)),
            )
        return table


@dataclass(frozen=True, slots=True)
class Delays:
    """How long one operation after another took with each contender; the first one is ours."""

    title: str
    seconds: Mapping[str, Sequence[float]]

    def table(self) -> Table:
        """Draw a row for each contender: microseconds, and how our median compares."""
        table = Table(title=self.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        table.add_column("µs from end to end", width=40)
        for heading in ("p50", "min - max", "p99", "p99.9", "p50 ours / peer"):
            table.add_column(heading, justify="right", min_width=10)
        ours = next(iter(self.seconds.values()))
        for name, seconds in self.seconds.items():
            ordered = sorted(seconds)
            table.add_row(
                name,
                _micro(median(ordered)),
                f"{_micro(ordered[0])} - {_micro(ordered[-1])}",
                _micro(_percentile(ordered, 0.99)),
                _micro(_percentile(ordered, 0.999)),
                "" if seconds is ours else f"{median(ours) / median(seconds):.2f}",
            )
        return table


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much memory each contender holds; the first one is ours."""

    title: str
    megabytes: Mapping[str, Sequence[float]]

    def table(self) -> Table:
        """Draw a row for each contender: megabytes, and how our median compares."""
        table = Table(title=self.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        table.add_column("MB resident", width=40)
        for heading in ("median", "min - max", "ours / peer"):
            table.add_column(heading, justify="right", min_width=10)
        ours = next(iter(self.megabytes.values()))
        for name, sizes in self.megabytes.items():
            table.add_row(
                name,
                f"{median(sizes):.1f}",
                f"{min(sizes):.1f} - {max(sizes):.1f}",
                "" if sizes is ours else f"{median(ours) / median(sizes):.2f}",
            )
        return table


class Bench:
    """Runs contenders in turns, so that what disturbs the machine disturbs them alike.

    Every contender warms up; then in each round every one has its turn, another one first each
    time. Garbage is collected before a turn, and as Python likes during it.

    Args:
        repetitions: how many rounds.
        smoke: a single tiny round, which shows that everything runs and measures nothing.
    """

    def __init__(self, *, repetitions: int, smoke: bool = False) -> None:
        self.repetitions = 1 if smoke else repetitions
        self.smoke = smoke
        self.comparisons: list[Comparison | Delays | Sizes] = []

    async def compare(
        self,
        title: str,
        operations: int,
        contenders: Mapping[str, Run],
        *,
        fewer: Mapping[str, int] | None = None,
        cpu: Mapping[str, Clock] | None = None,
    ) -> None:
        """Measure the contenders, ours first, at so many operations a turn; keep the outcome.

        Args:
            title: what is done.
            operations: how often in a turn.
            contenders: who does it, by name.
            fewer: how often in a turn those do it that would hold the others up.
            cpu: the clock of each contender's CPU time, where that is not this process's.
        """
        counts = self._counts(operations, contenders, fewer)
        for name, run in contenders.items():
            await run(max(counts[name] // _WARM_UP, 1))
        timings: dict[str, list[Timing]] = {name: [] for name in contenders}
        names = list(contenders)
        for repetition in range(self.repetitions):
            first = repetition % len(names)
            for name in names[first:] + names[:first]:
                timings[name].append(
                    await _timed(
                        contenders[name], counts[name], (cpu or {}).get(name, time.process_time)
                    )
                )
        self.comparisons.append(Comparison(title, timings))

    async def delays(
        self,
        title: str,
        operations: int,
        contenders: Mapping[str, Measure],
        *,
        fewer: Mapping[str, int] | None = None,
    ) -> None:
        """Have each contender tell how long each of so many operations took, in turns; keep it.

        In a turn those named in `fewer` do it so often only, that would hold the others up.
        """
        counts = self._counts(operations, contenders, fewer)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        names = list(contenders)
        for repetition in range(self.repetitions):
            first = repetition % len(names)
            for name in names[first:] + names[:first]:
                seconds[name] += await contenders[name](counts[name])
        self.comparisons.append(Delays(title, seconds))

    def _counts(
        self, operations: int, names: Iterable[str], fewer: Mapping[str, int] | None
    ) -> dict[str, int]:
        if self.smoke:
            return dict.fromkeys(names, _SMOKE_OPERATIONS)
        return dict.fromkeys(names, operations) | dict(fewer or {})


async def _timed(run: Run, operations: int, clock: Clock) -> Timing:
    gc.collect()
    cpu, began = clock(), time.perf_counter()
    await run(operations)
    seconds, cpu_seconds = time.perf_counter() - began, clock() - cpu
    return Timing(seconds / operations, cpu_seconds / operations)


def _ratios(ours: Sequence[Timing], peer: Sequence[Timing]) -> tuple[str, str]:
    """Return the medians of the rounds' ratios: within a round both met the same machine."""
    rounds = list(zip(ours, peer, strict=True))
    time_ratio = median(a.seconds / b.seconds for a, b in rounds)
    # Another process's clock ticks in hundredths of a second, of which a tiny round may see none.
    cpu_ratio = median(a.cpu_seconds / max(b.cpu_seconds, 1e-9) for a, b in rounds)
    return f"{time_ratio:.2f}", f"{cpu_ratio:.2f}"


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}"
