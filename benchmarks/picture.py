"""Pictures of figures, as SVG: the same figures make the same text.

Each has a ground of its own, light or dark as the reader's system is, so that it can be read
whatever the page around it looks like.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from benchmarks.outcomes import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_STYLE = """\
text { font: 12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2430 }
.ground { fill: #ffffff; stroke: #d5d9e0 }
.title { font-weight: 600; font-size: 13px }
.quiet { fill: #5c6473 }
.grid { stroke: #e3e6eb }
.ours { stroke: #1668c7; fill: #1668c7 }
.slower { fill: #7fb2e8 }
.faster { fill: #e08a3c }
.time { stroke: #1668c7; fill: none; stroke-width: 2 }
.cpu { stroke: #b8641a; fill: none; stroke-width: 2; stroke-dasharray: 5 4 }
@media (prefers-color-scheme: dark) {
text { fill: #e6e9ef }
.ground { fill: #171a21; stroke: #343a46 }
.quiet { fill: #a3abba }
.grid { stroke: #2b303b }
.ours { stroke: #6cb0ff; fill: #6cb0ff }
.slower { fill: #2f6fb3 }
.faster { fill: #c9742a }
.time { stroke: #6cb0ff }
.cpu { stroke: #f0a35e }
}"""
_WIDTH = 760
_MARGIN = 16

# Bars.
_NAMES = 286  # where the names end and the bars begin
_BARS_END = 640  # where the widest bar ends; what is written behind it needs the rest
_ROW = 20
_TITLE = 30

# Lines.
_PANEL_WIDTH = 364
_PANEL_HEIGHT = 220
_ZERO_STEP = 10
_PLOT = (56, 40, 340, 176)  # left, top, right and bottom of the plot in its panel


@dataclass(frozen=True, slots=True)
class Bars:
    """A group of bars: how many times ours each peer takes, and what is written behind it."""

    title: str
    peers: Mapping[str, tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Line:
    """How the seconds of one operation, and those of CPU, depend on something."""

    title: str
    axis: str
    places: Sequence[float]
    seconds: Sequence[float]
    cpu_seconds: Sequence[float]


@dataclass(frozen=True, slots=True)
class Rise:
    """How many megabytes are held, as something grows from nothing."""

    title: str
    axis: str
    places: Sequence[float]
    megabytes: Sequence[float]


def bars(label: str, groups: Sequence[Bars], rises: Sequence[Rise] = ()) -> str:
    """Draw groups of bars on one log axis, where ours is the line at 1; below them, rises."""
    times = [times for group in groups for times, _ in group.peers.values() if times > 0]
    least, most = min([*times, 0.8]), max([*times, 1.25])

    def place(value: float) -> float:
        share = math.log(max(value, least) / least) / math.log(most / least)
        return _NAMES + share * (_BARS_END - _NAMES)

    drawn: list[str] = []
    top = _MARGIN
    for group in groups:
        drawn.append(_text(_MARGIN, top + 16, group.title, "title"))
        top += _TITLE
        bottom = top + _ROW * len(group.peers)
        drawn += [
            _line(place(tick), top - 4, place(tick), bottom, "grid") for tick in _ticks(least, most)
        ]
        for name, (time, words) in group.peers.items():
            drawn += _bar(name, time, words, top, place)
            top += _ROW
        drawn.append(
            _line(place(1), bottom - _ROW * len(group.peers) - 4, place(1), bottom, "ours")
        )
        top += 10
    drawn += [
        _text(place(tick), top + 12, f"{tick:g} x", "quiet", anchor="middle")
        for tick in _ticks(least, most)
    ]
    note = "ours = 1: what ends to the right of the line takes more than ours"
    drawn.append(_text(_WIDTH / 2, top + 34, note, "quiet", anchor="middle"))
    top += 34 + _MARGIN
    drawn += _in_pairs([_rise(rise) for rise in rises], top)
    return _document(label, top + _height(rises), drawn)


def _bar(
    name: str, times: float, words: str, top: float, place: Callable[[float], float]
) -> Iterable[str]:
    middle = top + _ROW / 2 + 4
    yield _text(_NAMES - 10, middle, name, anchor="end")
    start, end = sorted((place(1), place(times)))
    if end - start >= 1:
        kind = "slower" if times > 1 else "faster"
        yield (
            f'<rect class="{kind}" x="{start:.1f}" y="{top + 3:.1f}" width="{end - start:.1f}" '
            f'height="{_ROW - 6}" rx="2"/>'
        )
    else:
        yield f'<circle class="ours" cx="{place(1):.1f}" cy="{top + _ROW / 2:.1f}" r="4"/>'
    yield _text(end + 8, middle, f"{_times(times)} ({words})", "quiet")


def lines(label: str, panels: Sequence[Line]) -> str:
    """Draw a panel for each line, two in a row; both axes are logarithmic."""
    drawn = list(_in_pairs([_panel(panel) for panel in panels], _MARGIN))
    bottom = _MARGIN + _height(panels)
    drawn.append(_line(270, bottom + 2, 300, bottom + 2, "time"))
    drawn.append(_text(306, bottom + 6, "time of one operation", "quiet"))
    drawn.append(_line(450, bottom + 2, 480, bottom + 2, "cpu"))
    drawn.append(_text(486, bottom + 6, "of CPU", "quiet"))
    return _document(label, bottom + 24, drawn)


def _height(panels: Sequence[object]) -> float:
    return math.ceil(len(panels) / 2) * _PANEL_HEIGHT


def _in_pairs(panels: Iterable[Iterable[str]], top: float) -> Iterable[str]:
    for number, panel in enumerate(panels):
        across, down = number % 2, number // 2
        x, y = _MARGIN + across * _PANEL_WIDTH, top + down * _PANEL_HEIGHT
        yield f'<g transform="translate({x},{y})">'
        yield from panel
        yield "</g>"


def _rise(rise: Rise) -> Iterable[str]:
    """Draw a panel whose axes both begin at nothing, so that what is flat looks flat."""
    left, top, right, bottom = _PLOT
    last, most = max(rise.places) or 1, max(rise.megabytes) * 1.2 or 1

    def across(place: float) -> float:
        return left + (right - left) * place / last

    def down(megabytes: float) -> float:
        return bottom - (bottom - top) * megabytes / most

    yield _text(0, 14, rise.title, "title")
    step = float(f"{most / 4:.1g}")
    for number in range(int(most / step) + 1):
        tick = number * step
        yield _line(left, down(tick), right, down(tick), "grid")
        yield _text(left - 6, down(tick) + 4, f"{tick:g} MB", "quiet", anchor="end")
    for place in (0, last / 4, last / 2, last):
        yield _line(across(place), top, across(place), bottom, "grid")
        yield _text(across(place), bottom + 16, _short(place), "quiet", anchor="middle")
    yield _text((left + right) / 2, bottom + 32, rise.axis, "quiet", anchor="middle")
    points = [(across(x), down(y)) for x, y in zip(rise.places, rise.megabytes, strict=True)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline class="time" points="{path}"/>'
    for x, y in points:
        yield f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
    yield _text(points[-1][0], points[-1][1] - 8, f"{rise.megabytes[-1]:.1f} MB", anchor="end")


def _panel(panel: Line) -> Iterable[str]:
    left, top, right, bottom = _PLOT
    points = sorted(zip(panel.places, panel.seconds, panel.cpu_seconds, strict=True))
    # Zero has no place on a log axis: a clock that ticks slowly may have seen nothing.
    values = [value for _, *both in points for value in both if value > 0] or [1.0]
    least, most = min(values) / 1.3, max(values) * 1.3
    # Nor has it among the places: it stands a step to the left of the first that has.
    zero = min((place for place, *_ in points if place > 0), default=1.0) / _ZERO_STEP
    first, last = points[0][0] or zero, points[-1][0] or zero

    def across(place: float) -> float:
        if first == last:
            return (left + right) / 2
        return left + (right - left) * math.log((place or zero) / first) / math.log(last / first)

    def down(value: float) -> float:
        return bottom - (bottom - top) * math.log(max(value, least) / least) / math.log(
            most / least
        )

    yield _text(0, 14, panel.title, "title")
    for tick in _ticks(least, most):
        yield _line(left, down(tick), right, down(tick), "grid")
        yield _text(left - 6, down(tick) + 4, in_words(tick), "quiet", anchor="end")
    for place, *_ in points:
        yield _line(across(place), top, across(place), bottom, "grid")
        yield _text(across(place), bottom + 16, _short(place), "quiet", anchor="middle")
    yield _text((left + right) / 2, bottom + 32, panel.axis, "quiet", anchor="middle")
    for kind, which in (("time", 1), ("cpu", 2)):
        path = " ".join(f"{across(point[0]):.1f},{down(point[which]):.1f}" for point in points)
        yield f'<polyline class="{kind}" points="{path}"/>'
    for place, seconds, _ in points:
        yield f'<circle class="ours" cx="{across(place):.1f}" cy="{down(seconds):.1f}" r="3"/>'


def _document(label: str, height: float, drawn: Iterable[str]) -> str:
    size = f'width="{_WIDTH}" height="{height:.0f}" viewBox="0 0 {_WIDTH} {height:.0f}"'
    inside = f'width="{_WIDTH - 1}" height="{height - 1:.0f}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>',
            f"<title>{escape(label)}</title>",
            f"<style>\n{_STYLE}\n</style>",
            f'<rect class="ground" x="0.5" y="0.5" {inside} rx="6"/>',
            *drawn,
            "</svg>\n",
        )
    )


def _text(x: float, y: float, words: str, kind: str = "", *, anchor: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    anchor = f' text-anchor="{anchor}"' if anchor else ""
    return f'<text{kind}{anchor} x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"/>'


def _ticks(least: float, most: float) -> list[float]:
    """Return round values between two, at least one and not too many."""
    decades = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0)):
        found = [
            value
            for decade in decades
            for step in steps
            if least <= (value := float(f"{step * 10.0**decade:.3g}")) <= most
        ]
        if len(found) >= 3:  # noqa: PLR2004 - fewer leave a reader to guess
            return found
    return found


def _times(value: float) -> str:
    return f"{float(f'{value:.2g}'):g} x"


def _short(place: float) -> str:
    for size, name in ((1_000_000, "M"), (1_000, "k")):
        if place >= size:
            return f"{place / size:g}{name}"
    return f"{place:g}"
