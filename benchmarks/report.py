"""``python -m benchmarks.report``: put kept results into the docs, as tables and pictures."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.outcomes import Comparison, Growth
from benchmarks.picture import Bars, Line, Rise, bars, lines
from benchmarks.results import KEPT, Measured, Results

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.outcomes import Cells, Outcome

DOCS = Path(__file__).parents[1] / "docs"
"""Where performance.md is."""

BEGIN = "<!-- measured: from here to the end mark, `make bench` writes -->"
END = "<!-- measured: end -->"


def main(
    results: Annotated[Path, typer.Argument(help="What --save kept.")] = KEPT,
    docs: Annotated[Path, typer.Option(help="Holds performance.md and pictures.")] = DOCS,
) -> None:
    """Write the tables of kept results into performance.md, and draw its pictures."""
    try:
        report(Results.read(results), docs)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error


def report(results: Results, docs: Path) -> None:
    """Replace the measured section of performance.md, and the pictures it shows.

    Raises:
        FileNotFoundError: there is no such page.
        ValueError: the page has no such section.
    """
    page = docs / "performance.md"
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} needs a line {BEGIN} and a line {END} after it")
    pictures = docs / "pictures"
    pictures.mkdir(exist_ok=True)
    for part, measured in results.parts.items():
        (pictures / f"{part}.svg").write_text(picture(part, measured))
    page.write_text(f"{before}{begin}\n\n{section(results)}\n{end}{after}")


def section(results: Results) -> str:
    """Return the measured section: per part where and with what, its picture, its tables."""
    lines = [_where(list(results.parts.values()))]
    for part, measured in results.parts.items():
        lines += ["", f"### {part}", ""]
        if not measured.complete:
            lines += ["It did not come to its end; what it had found until then:", ""]
        lines += [f"![{_label(part)}](pictures/{part}.svg)"]
        for outcome in measured.outcomes:
            lines += ["", f"**{_what(outcome)}**", "", *_table(outcome.columns, outcome.rows())]
        lines += ["", _with_what(measured)]
    return "\n".join(lines) + "\n"


def picture(part: str, measured: Measured) -> str:
    """Draw a part: bars, and how memory grows; or lines where something else grows."""
    curves = [
        outcome for outcome in measured.outcomes if isinstance(outcome, Comparison) and outcome.axis
    ]
    if curves:
        return lines(_label(part), [_curve(curve) for curve in curves])
    groups, rises = [], []
    for outcome in measured.outcomes:
        if isinstance(outcome, Growth):
            rises.append(Rise(_what(outcome), outcome.axis, outcome.places, outcome.megabytes))
        else:
            groups.append(Bars(_what(outcome), outcome.peers()))
    return bars(_label(part), groups, rises)


def _curve(curve: Comparison) -> Line:
    return Line(
        _what(curve),
        curve.axis,
        [curve.places[name] for name in curve.timings],
        [median(timing.seconds for timing in timings) for timings in curve.timings.values()],
        [median(timing.cpu_seconds for timing in timings) for timings in curve.timings.values()],
    )


def _label(part: str) -> str:
    return f"{part}: how we and our peers compare"


def _what(outcome: Outcome) -> str:
    """Return what was done, without the part it belongs to."""
    return outcome.title.partition(": ")[2] or outcome.title


def _where(measured: Sequence[Measured]) -> str:
    """Say on what machines; most often it was one."""
    machines = [name for name, _ in groupby(sorted(each.machine for each in measured))]
    return f"On {'; and on '.join(machines)}." if machines else "Nothing was measured."


def _with_what(measured: Measured) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in measured.versions.items())
    return (
        f"{measured.taken:%Y-%m-%d %H:%M} UTC, {measured.machine}; {versions}; "
        f"{measured.repetitions} repetitions, a turn at most {measured.turn_seconds:g} s."
    )


def _table(columns: Cells, rows: Iterable[Cells]) -> Iterable[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"| --- |{' ---: |' * (len(columns) - 1)}"
    for row in rows:
        yield "|" + "".join(f" {cell} |" if cell else " |" for cell in row)


if __name__ == "__main__":
    typer.run(main)
