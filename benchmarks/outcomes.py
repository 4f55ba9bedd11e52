"""What a measurement found: the rows of its table, and how our peers compare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

Cells = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timing:
    """One round of one contender: seconds per operation, and seconds of CPU."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One operation as each contender did it, round by round; the first contender is ours.

    Attributes:
        title: what was done, `PART: WHAT`.
        timings: the rounds of each contender.
        wanted: how many operations a turn was to have.
        operations: how many it had; fewer where they would have taken too long.
        axis: of a curve, what grows from one contender to the other; else empty.
        places: of a curve, where each contender stands on that axis.
    """

    title: str
    timings: Mapping[str, Sequence[Timing]]
    wanted: int
    operations: Mapping[str, int]
    axis: str = ""
    places: Mapping[str, float] = field(default_factory=dict)
    kind: Literal["comparison"] = "comparison"

    @property
    def columns(self) -> Cells:
        """The headings of the table."""
        headings = ("median", "min - max", "CPU", "ours / peer", "of CPU", "a turn")
        if self.axis:
            headings = ("median", "min - max", "CPU", "first / this", "of CPU", "a turn")
        return ("µs per operation", *headings)

    def rows(self) -> Sequence[Cells]:
        """A row for each contender: microseconds per operation, and how ours compare."""
        ours = next(iter(self.timings.values()))
        rows = []
        for name, timings in self.timings.items():
            seconds = [timing.seconds for timing in timings]
            given = self.operations[name]
            rows.append(
                (
                    name,
                    micro(median(seconds)),
                    f"{micro(min(seconds))} - {micro(max(seconds))}",
                    micro(median(timing.cpu_seconds for timing in timings)),
                    *(("", "") if timings is ours else _ratios(ours, timings)),
                    f"{given:,}" if given == self.wanted else f"{given:,} of {self.wanted:,}",
                )
            )
        return rows

    def peers(self) -> dict[str, tuple[float, str]]:
        """Return how many times our time each peer takes, and its own in words."""
        ours = next(iter(self.timings.values()))
        return {
            name: (
                median(b.seconds / a.seconds for a, b in zip(ours, timings, strict=True)),
                in_words(median(timing.seconds for timing in timings)),
            )
            for name, timings in self.timings.items()
        }


@dataclass(frozen=True, slots=True)
class Delays:
    """How long one operation after another took with each contender; the first one is ours."""

    title: str
    seconds: Mapping[str, Sequence[float]]
    kind: Literal["delays"] = "delays"

    @property
    def columns(self) -> Cells:
        """The headings of the table."""
        return ("µs from end to end", "p50", "min - max", "p99", "p99.9", "p50 ours / peer", "seen")

    def rows(self) -> Sequence[Cells]:
        """A row for each contender: microseconds, and how our median compares."""
        ours = next(iter(self.seconds.values()))
        rows = []
        for name, seconds in self.seconds.items():
            ordered = sorted(seconds)
            rows.append(
                (
                    name,
                    micro(median(ordered)),
                    f"{micro(ordered[0])} - {micro(ordered[-1])}",
                    micro(_percentile(ordered, 0.99)),
                    micro(_percentile(ordered, 0.999)),
                    "" if seconds is ours else _two_digits(median(ours) / median(seconds)),
                    f"{len(ordered):,}",
                )
            )
        return rows

    def peers(self) -> dict[str, tuple[float, str]]:
        """Return how many times our median each peer's is, and its own in words."""
        ours = median(next(iter(self.seconds.values())))
        return {
            name: (median(seconds) / ours, in_words(median(seconds)))
            for name, seconds in self.seconds.items()
        }


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much memory each contender holds; the first one is ours."""

    title: str
    megabytes: Mapping[str, Sequence[float]]
    kind: Literal["sizes"] = "sizes"

    @property
    def columns(self) -> Cells:
        """The headings of the table."""
        return ("MB resident", "median", "min - max", "ours / peer")

    def rows(self) -> Sequence[Cells]:
        """A row for each contender: megabytes, and how our median compares."""
        ours = next(iter(self.megabytes.values()))
        return [
            (
                name,
                f"{median(sizes):.1f}",
                f"{min(sizes):.1f} - {max(sizes):.1f}",
                "" if sizes is ours else _two_digits(median(ours) / median(sizes)),
            )
            for name, sizes in self.megabytes.items()
        ]

    def peers(self) -> dict[str, tuple[float, str]]:
        """Return how many times our memory each peer holds, and its own in words."""
        ours = median(next(iter(self.megabytes.values())))
        return {
            name: (median(sizes) / ours, f"{median(sizes):.0f} MB")
            for name, sizes in self.megabytes.items()
        }


@dataclass(frozen=True, slots=True)
class Growth:
    """How much memory a process of ours holds, as what went through it grows.

    Attributes:
        title: what was done, `PART: WHAT`.
        axis: what grows.
        places: how much of it there was, at first none.
        megabytes: what was held then.
    """

    title: str
    axis: str
    places: Sequence[int]
    megabytes: Sequence[float]
    kind: Literal["growth"] = "growth"

    @property
    def columns(self) -> Cells:
        """The headings of the table."""
        return (self.axis, "MB resident", "since the line above")

    def rows(self) -> Sequence[Cells]:
        """A row for each place: megabytes, and how many more than at the place before."""
        before = (None, *self.megabytes)
        return [
            (f"{place:,}", f"{held:.1f}", "" if last is None else f"{held - last:+.1f}")
            for place, held, last in zip(self.places, self.megabytes, before, strict=False)
        ]


Outcome = Comparison | Delays | Sizes | Growth

_LONG = 1e-2  # seconds; tenths of a microsecond are noise then
_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


def micro(seconds: float) -> str:
    """Write seconds as microseconds."""
    return f"{seconds * 1e6:,.{1 if seconds < _LONG else 0}f}"


def in_words(seconds: float) -> str:
    """Write seconds with two digits that count, in the unit that suits them."""
    unit, size = next((found for found in _UNITS if seconds >= found[1]), _UNITS[-1])
    return f"{float(f'{seconds / size:.2g}'):g} {unit}"


def _ratios(ours: Sequence[Timing], peer: Sequence[Timing]) -> tuple[str, str]:
    """Return the medians of the rounds' ratios: within a round both met the same machine."""
    rounds = list(zip(ours, peer, strict=True))
    time_ratio = median(a.seconds / b.seconds for a, b in rounds)
    # Another process's clock ticks in hundredths of a second, of which a tiny round may see none.
    cpu_ratio = median(a.cpu_seconds / max(b.cpu_seconds, 1e-9) for a, b in rounds)
    return _two_digits(time_ratio), _two_digits(cpu_ratio)


def _two_digits(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"  # noqa: PLR2004


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
