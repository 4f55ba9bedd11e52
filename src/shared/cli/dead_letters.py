"""``glam dlq``: dead letters listed, shown, replayed and discarded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from shared.config import NatsSettings
from shared.messaging import Bus, DeadLetters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["app"]

app = typer.Typer(help="Look at dead letters; replay or discard them.", no_args_is_help=True)

T = TypeVar("T")

Servers = Annotated[
    str,
    typer.Option(envvar="GLAM_NATS_SERVERS", help="NATS addresses, separated by commas."),
]
Sequence = Annotated[int, typer.Argument(help="Number of the dead letter, as listed.")]
LOCAL = "nats://127.0.0.1:4222"


@app.command("list")
def list_letters(*, servers: Servers = LOCAL, limit: int = 100) -> None:
    """List dead letters, newest last."""
    letters = _with_dead_letters(servers, lambda dead: dead.list(limit=limit))
    table = Table()
    for heading in ("#", "at", "subject", "handler", "attempts", "reason", "error"):
        table.add_column(heading, overflow="fold")
    for letter in letters:
        table.add_row(
            str(letter.sequence),
            f"{letter.at:%Y-%m-%d %H:%M:%S}",
            letter.subject,
            letter.durable,
            str(letter.attempts),
            letter.reason,
            (letter.error_type or "").rpartition(".")[2],
        )
    Console().print(table)


@app.command()
def show(sequence: Sequence, *, servers: Servers = LOCAL) -> None:
    """Show one dead letter whole: headers and body."""
    letter = _with_dead_letters(servers, lambda dead: dead.get(sequence))
    console = Console()
    for name, value in letter.headers.items():
        console.print(f"[dim]{name}:[/dim] {value}", highlight=False)
    console.print()
    console.print(letter.body.decode(errors="backslashreplace"), markup=False)


@app.command()
def replay(sequence: Sequence, *, servers: Servers = LOCAL) -> None:
    """Publish one dead letter to its subject again, then take it off the list."""
    _with_dead_letters(servers, lambda dead: dead.replay(sequence))
    typer.echo(f"replayed {sequence}")


@app.command()
def discard(
    sequence: Sequence,
    reason: Annotated[str, typer.Option(help="Why; kept in the log.", prompt=True)],
    *,
    servers: Servers = LOCAL,
) -> None:
    """Take one dead letter off the list for good."""
    _with_dead_letters(servers, lambda dead: dead.discard(sequence, reason))
    typer.echo(f"discarded {sequence}")


def _with_dead_letters(servers: str, work: Callable[[DeadLetters], Awaitable[T]]) -> T:
    async def connected() -> T:
        settings = NatsSettings(servers=tuple(servers.split(",")))
        async with Bus(settings, name="glam-cli") as bus:
            return await work(DeadLetters(bus))

    return asyncio.run(connected())
