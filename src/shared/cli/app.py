"""The verbs of ``glam``. Each imports what it needs when it runs, so that help is quick."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from shared.cli.doctor import doctor
from shared.cli.target import (
    DEVELOPMENT_DATA,
    Target,
    Targets,
    load_service,
    services_meant,
)

if TYPE_CHECKING:
    from typer._click import Command, Context


_GROUPS = {
    "contracts": "shared.cli.contracts",
    "dlq": "shared.cli.dead_letters",
    "outbox": "shared.cli.outbox",
    "migrate": "shared.cli.migrate",
}
"""The module of each group of verbs."""


class _Verbs(TyperGroup):
    """Loads a group of verbs when it is called, or listed in the help.

    A service is run by one of the verbs here, and would wait for what the others import.
    """

    def list_commands(self, ctx: Context) -> list[str]:
        own = [name for name in super().list_commands(ctx) if name not in _GROUPS]
        return [*own, *_GROUPS]

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name in _GROUPS and cmd_name not in self.commands:
            group = typer.main.get_group(import_module(_GROUPS[cmd_name]).app)
            group.name = cmd_name
            self.add_command(group)
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    name="glam",
    cls=_Verbs,
    help="Run, watch and repair services built on glam-shared.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Look at a service's configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")


@app.command()
def run(target: Target) -> None:
    """Serve one service until SIGTERM, then drain."""
    load_service(target).run()


@app.command()
def up(
    targets: Targets = None,
    *,
    data: Annotated[
        Path, typer.Option(help="Where servers keep their data and services their logs.")
    ] = DEVELOPMENT_DATA,
    reload: Annotated[bool, typer.Option(help="Restart services when code changes.")] = True,
) -> None:
    """Start NATS, PostgreSQL, a mail sink and services for development; print every address."""
    from shared.cli.up import bring_up  # noqa: PLC0415

    chosen = services_meant(targets, "glam up hello.py")
    raise typer.Exit(asyncio.run(bring_up(chosen, data=data, reload=reload)))


app.command()(doctor)


@app.command()
def trace(
    trace_id: Annotated[str, typer.Argument(help="32 hex digits: X-Trace-ID of an answer.")],
    logs: Annotated[
        Path, typer.Option(help="Folder (or file) of JSON logs; searched with its subfolders.")
    ] = DEVELOPMENT_DATA / "logs",
) -> None:
    """Draw one trace as a tree, over all services, from their logs."""
    from rich.console import Console  # noqa: PLC0415

    from shared.dev.trace_tree import read_spans, render_trace  # noqa: PLC0415

    files = (
        [logs] if logs.is_file() else sorted(logs.rglob("*.log*")) + sorted(logs.rglob("*.jsonl"))
    )
    spans = [span for span in read_spans(files) if span.trace_id == trace_id]
    if not spans:
        typer.echo(f"no span of trace {trace_id} in {len(files)} file(s) below {logs}", err=True)
        raise typer.Exit(1)
    Console().print(render_trace(spans))


@app.command()
def errors() -> None:
    """List every error code with its status, class and meaning."""
    from shared.cli.table import print_table  # noqa: PLC0415
    from shared.errors import catalogue  # noqa: PLC0415

    rows = ((entry.code, entry.status, entry.name, entry.summary) for entry in catalogue())
    print_table(("code", "status", "class", "meaning"), rows)


@config_app.command("show")
def config_show(
    target: Target,
    *,
    origin: Annotated[bool, typer.Option(help="Say where each value comes from.")] = False,
) -> None:
    """Show the settings of a service, secrets masked."""
    from shared.cli.table import print_table  # noqa: PLC0415
    from shared.config import explain  # noqa: PLC0415

    service = load_service(target)
    settings = explain(service.settings_type, service.name)
    shown = 3 if origin else 2
    rows = ((each.key, each.value, each.origin)[:shown] for each in settings)
    print_table(("setting", "value", "origin")[:shown], rows)


def main() -> None:
    """Run ``glam``; a mistake of the user's is told in one sentence, with status 1."""
    try:
        app()
    except _mistakes() as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)


def _mistakes() -> tuple[type[Exception], ...]:
    from shared.config import ConfigError  # noqa: PLC0415
    from shared.errors import GlamBaseError  # noqa: PLC0415
    from shared.service import DeclarationError  # noqa: PLC0415

    return (ConfigError, GlamBaseError, DeclarationError)
