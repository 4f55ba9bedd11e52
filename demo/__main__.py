"""``python -m demo``: exits with 0 when every check holds, else with 1; with 2 on bad arguments."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from demo.day import plan
from demo.orders import OrderVersion, make_orders, read_orders
from demo.scenario import Scenario
from shared.dev import ProcessError

_ORDERS, _FAST_ORDERS = 300, 60
_FILE_WIDTH = 160  # columns, where nobody says how wide the paper is


def main(
    orders: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="JSON lines of Shopify orders/* webhooks, in place of orders made up.",
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, help="Orders: made up, or read from the file at most.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed makes up the same orders.")] = 7,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running at the end, until Ctrl-C.")
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help=f"Make up {_FAST_ORDERS} orders, not {_ORDERS}.")
    ] = False,
) -> None:
    """Run a day of a dozen shops on real servers and services, and check what came of it."""
    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    chance = random.Random(seed)  # noqa: S311 - no secret
    if orders is None:
        versions = make_orders(count or (_FAST_ORDERS if fast else _ORDERS), chance)
    else:
        versions = _read(orders, count, console)
    folder = Path(tempfile.mkdtemp(prefix="glam-demo-"))
    folder.chmod(0o755)  # under root, PostgreSQL runs as another user
    scenario = Scenario(plan(versions, chance), console, folder, keep=keep)
    ended_by = None
    try:
        ended_by = asyncio.run(_until_signalled(scenario))
    except* ProcessError as failed:
        for error in failed.exceptions:
            console.print(str(error), style="red", markup=False, highlight=False)
    finally:
        if scenario.checks and not scenario.ok:
            console.print(f"data and logs stay in {folder}", markup=False)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    if ended_by is not None and not (keep and scenario.checks):
        raise typer.Exit(128 + ended_by)
    raise typer.Exit(0 if scenario.ok else 1)


def _read(path: Path, count: int | None, console: Console) -> list[OrderVersion]:
    versions, broken = read_orders(path)
    for line in broken:
        console.print(f"{path}:{line.number}: skipped: {line.reason}", style="yellow", markup=False)
    wanted = set(list(dict.fromkeys(version.order_id for version in versions))[:count])
    versions = [version for version in versions if version.order_id in wanted]
    if not versions:
        console.print(f"{path}: no order in it", style="red", markup=False)
        raise typer.Exit(2)
    console.print(f"{path}: {len(versions)} versions of {len(wanted)} orders", markup=False)
    return versions


async def _until_signalled(scenario: Scenario) -> int | None:
    """Run to the end, or until SIGINT or SIGTERM; return the signal, with everything stopped."""
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(scenario.run())
    received: list[int] = []

    def stop(number: int) -> None:
        received.append(number)
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop, number)
    try:
        await running
    except asyncio.CancelledError:
        if not received:
            raise
    return received[0] if received else None


if __name__ == "__main__":
    typer.run(main)
