"""``python -m benchmarks``: measure the parts named, or all."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import traceback
from contextlib import redirect_stdout
from enum import StrEnum
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Bench
from benchmarks.report import DOCS, report
from benchmarks.results import KEPT, Measured, Results, keep, machine, versions
from shared.config import LoggingSettings
from shared.logging import configure_logging

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.outcomes import Outcome

_FILE_WIDTH = 180  # columns, where nobody says how wide the paper is


class Part(StrEnum):
    """What can be measured."""

    ENVELOPE = "envelope"
    PUBLISH = "publish"
    PUBLISH_SIZES = "publish-sizes"
    CONSUME = "consume"
    HTTP = "http"
    LOG = "log"
    OUTBOX = "outbox"
    OUTBOX_SIZES = "outbox-sizes"
    INBOX = "inbox"
    POSTGRES = "postgres"
    START = "start"
    MEMORY = "memory"
    CURVES = "curves"


def _measure(part: Part) -> Callable[[Bench], Coroutine[None, None, None]]:
    """Return what measures a part: its peers are imported with it, and nobody else's."""
    name = part.value.replace("-", "_")
    module = import_module(f"benchmarks.{name.partition('_')[0]}")
    measure: Callable[[Bench], Coroutine[None, None, None]] = getattr(module, name)
    return measure


def main(
    parts: Annotated[list[Part] | None, typer.Argument(help="By default all of them.")] = None,
    repetitions: Annotated[
        int, typer.Option(min=1, help="Rounds, in each of which every contender has its turn.")
    ] = 5,
    turn_seconds: Annotated[
        float,
        typer.Option(min=0.01, help="How long a turn may take; the slow are given less to do."),
    ] = 1.5,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="See that everything runs; the figures mean nothing.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(help="Keep what is found in this file of JSON, part by part."),
    ] = None,
    docs: Annotated[
        bool,
        typer.Option(
            "--docs",
            help="Keep it in benchmarks/results.json, and put all that is kept there into "
            "docs/performance.md; not with --save or --smoke.",
        ),
    ] = False,
) -> None:
    """Measure what the package costs beside what could stand in its place.

    Times vary with the machine and the hour; of worth are the ratios, ours to the peer's: below 1
    we are faster. Ends with 1 when a part failed; the others are measured all the same.
    """
    console = Console(file=sys.stdout)  # the real one, whatever is put in its place below
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    if docs := docs and save is None and not smoke:
        save = KEPT
    if save is not None and save.exists():
        _readable(save)
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    console.print(f"{machine()}\n{packages}", highlight=False, soft_wrap=True)
    failed = []
    with (
        tempfile.TemporaryDirectory(prefix="glam-benchmarks-") as folder,
        # A service in production: JSON lines on standard output, which somebody keeps in a file.
        (Path(folder) / "output.log").open("w") as output,
        redirect_stdout(output),
    ):
        # Every line is written: of a repeated one, sampling would spare the peers all but some.
        configure_logging(
            LoggingSettings(format="json", sample_keep=0), service="benchmarks", environment="prod"
        )
        for part in dict.fromkeys(parts or Part):
            bench = Bench(
                repetitions=repetitions,
                turn_seconds=turn_seconds,
                smoke=smoke,
                found=partial(_tell, part, console, save),
            )
            if _measured(part, bench):
                _keep(part, bench, save, complete=True)
            else:
                failed.append(part.value)
            if docs and save is not None:
                report(Results.read(save), DOCS)
    if failed:
        console.print(f"failed: {', '.join(failed)}", highlight=False)
        raise typer.Exit(1)


def _tell(part: Part, console: Console, save: Path | None, bench: Bench) -> None:
    """Print and keep at once, so that nothing is lost when somebody has seen enough."""
    console.print(_table(bench.comparisons[-1]))
    _keep(part, bench, save, complete=False)


def _keep(part: Part, bench: Bench, save: Path | None, *, complete: bool) -> None:
    if save is not None:
        measured = Measured.now(
            part.value,
            bench.comparisons,
            repetitions=bench.repetitions,
            turn_seconds=bench.turn_seconds,
            complete=complete,
        )
        keep(save, part.value, measured)


def _measured(part: Part, bench: Bench) -> bool:
    """Measure a part; whether it came to its end. If it fails, the others shall be measured."""
    try:
        asyncio.run(_measure(part)(bench))
    except Exception:  # noqa: BLE001 - whatever it is, it is shown
        traceback.print_exc()
        return False
    return True


def _readable(save: Path) -> None:
    """See now, and not after the first part, that results can be kept there."""
    try:
        Results.read(save)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--save") from error


def _table(outcome: Outcome) -> Table:
    table = Table(title=outcome.title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    names, *headings = outcome.columns
    table.add_column(names, width=40)
    for heading in headings:
        table.add_column(heading, justify="right", min_width=8, no_wrap=True)
    for row in outcome.rows():
        table.add_row(*row)
    return table


if __name__ == "__main__":
    typer.run(main)
