"""``glam outbox``: how a service's outbox stands, and a lost stream filled again from it."""

from __future__ import annotations

import asyncio
from datetime import datetime  # noqa: TC003 - typer reads it at run time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from shared.cli.table import print_table
from shared.cli.target import Target, load_service
from shared.database import Database
from shared.delivery import OutboxStatus, Rebuilt, read_outbox_status, rebuild_streams
from shared.messaging import Bus

if TYPE_CHECKING:
    from shared.service import ServiceSettings


app = typer.Typer(
    help="Look at a service's outbox; fill a lost stream again.", no_args_is_help=True
)


@app.command()
def status(target: Target) -> None:
    """Show what waits to be published and what fails, and which relays hold the partitions."""
    settings, schema = _place(target)

    async def read() -> OutboxStatus:
        async with Database(settings.database, schema=schema) as database:
            return await read_outbox_status(database)

    found = asyncio.run(read())
    backlog = found.backlog
    console = Console()
    console.print(
        f"{schema}: {backlog.count} to publish, the oldest for {backlog.oldest_age_seconds:.0f} s; "
        f"{backlog.failing} failed before",
        highlight=False,
    )
    if found.kept_since is not None:
        console.print(f"kept since {found.kept_since:%Y-%m-%d %H:%M:%S %Z}", highlight=False)
    print_table(
        ("partition", "relay", "for"),
        (
            (lease.partition, lease.owner or "nobody", _remaining(lease.expires_in_seconds))
            for lease in found.leases
        ),
    )
    if found.failing:
        print_table(
            ("event", "subject", "key", "attempts", "last error"),
            ((x.event_id, x.subject, x.key, x.attempts, x.last_error) for x in found.failing),
        )


@app.command()
def rebuild(
    target: Target,
    *,
    stream: Annotated[
        str | None, typer.Option(help="Only this one; by default all it publishes to.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Only what was added since then, in local time unless it says otherwise.",
            formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="At most so many messages a second.")
    ] = None,
) -> None:
    """Publish again what the outbox keeps and its stream no longer has. May be repeated."""
    settings, schema = _place(target)
    moment = since.astimezone() if since is not None else None

    async def work() -> Rebuilt:
        async with (
            Database(settings.database, schema=schema) as database,
            Bus(settings.nats, name="glam-cli") as bus,
        ):
            return await rebuild_streams(
                database,
                bus,
                streams=load_service(target).streams_with(settings.nats),
                stream=stream,
                since=moment,
                dry_run=dry_run,
                rate=rate,
            )

    done = asyncio.run(work())
    would = "would be published" if dry_run else "published"
    typer.echo(f"{schema}: {done.kept} kept, {done.present} still there, {done.published} {would}")


def _remaining(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.0f} s" if seconds > 0 else "expired"


def _place(target: str) -> tuple[ServiceSettings, str]:
    service = load_service(target)
    settings = service.load_settings()
    return settings, settings.database.schema_name or service.schema
