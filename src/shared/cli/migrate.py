"""``glam migrate``: the revisions of a service's schema, written, run, looked at and checked."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from shared.cli.target import Target, load_service
from shared.database import Base, Database, MigrationError, Migrations
from shared.database.migrations.check import check_migrations
from shared.database.migrations.model_operations import FirstRevision, models_of
from shared.database.migrations.squash import squash_revisions
from shared.errors import DatabaseError, missing_extra

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from shared.service import Service, ServiceSettings


app = typer.Typer(help="Migrate a service's schema.", no_args_is_help=True)

Temporary = Annotated[
    bool, typer.Option("--temporary", help="Against a new, empty database that is thrown away.")
]
R = TypeVar("R")

_FIRST = FirstRevision(
    imports=(
        "from shared.delivery import create_delivery_tables, create_outbox_leases",
        "from shared.delivery import drop_delivery_tables, drop_outbox_leases",
    ),
    upgrade=("create_delivery_tables(op)", "create_outbox_leases(op)"),
    downgrade=("drop_outbox_leases(op)", "drop_delivery_tables(op)"),
)


@dataclass(frozen=True, slots=True)
class _Place:
    """A service's revisions and models, and the database they are about."""

    target: str
    migrations: Migrations
    tables: frozenset[str]

    @property
    def schema(self) -> str:
        return self.migrations.database.schema


@app.command()
def new(
    target: Target,
    message: Annotated[str, typer.Argument(help='What it does: "orders have a note".')],
    *,
    models: Annotated[
        bool,
        typer.Option("--models/--empty", help="Filled with what the schema lacks, or empty."),
    ] = True,
    temporary: Temporary = False,
) -> None:
    """Write a revision: from the models, which are compared with the schema at its newest."""

    async def work(place: _Place) -> Path:
        if temporary:
            await place.migrations.upgrade()
        return await place.migrations.create(
            message,
            Base.metadata,
            tables=place.tables,
            first=_FIRST,
        )

    path = (
        _run(target, work, temporary=temporary)
        if models
        else asyncio.run(_place(target).migrations.create(message))
    )
    typer.echo(f"{_short(path)}: read it, then: glam migrate check {target}")


@app.command()
def up(
    target: Target,
    revision: Annotated[str, typer.Argument(help="Up to here; +1 for the next.")] = "head",
) -> None:
    """Bring a service's schema to its newest revision, under a lock."""

    async def work(place: _Place) -> str:
        return f"{place.schema}: {await place.migrations.upgrade(revision) or 'no revisions'}"

    typer.echo(_run(target, work))


@app.command(context_settings={"ignore_unknown_options": True})
def down(
    target: Target,
    revision: Annotated[
        str, typer.Argument(help="Back to here; -1 for the one before, base for none.")
    ],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before data is lost.")] = False,
) -> None:
    """Go back to a revision; asks when data would be lost."""

    async def work(place: _Place) -> str:
        if not yes and (losses := await place.migrations.losses(revision)):
            typer.echo("This loses data:")
            for loss in losses:
                typer.echo(f"  {loss}")
            typer.confirm("Go back?", abort=True)
        return f"{place.schema}: {await place.migrations.downgrade(revision) or 'base'}"

    typer.echo(_run(target, work))


@app.command()
def current(target: Target) -> None:
    """Show the revision that the schema is at."""

    async def work(place: _Place) -> str:
        return f"{place.schema}: {await place.migrations.current() or 'before the first revision'}"

    typer.echo(_run(target, work))


@app.command()
def history(target: Target) -> None:
    """List the revisions, newest first; needs no database."""
    for revision in _place(target).migrations.history():
        after = f"after {', '.join(revision.down)}" if revision.down else "the first"
        typer.echo(f"{revision.id}  {revision.message}  ({after})")


@app.command()
def heads(target: Target) -> None:
    """List the newest revisions: one, if all is well; needs no database."""
    found = _place(target).migrations.heads()
    for head in found:
        typer.echo(head)
    if len(found) > 1:
        typer.echo("more than one: two were written after the same one; let one follow", err=True)
        raise typer.Exit(1)


@app.command()
def check(
    target: Target,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Lint applied revisions as well.")
    ] = False,
    temporary: Temporary = False,
) -> None:
    """Say whether models, revisions and schema agree, and which steps are dangerous. For CI.

    Status 1 when the schema lacks a revision or what a model says, when two revisions are the
    newest, and for every finding of the linter in revisions that are not applied. With --temporary,
    all revisions are run, each forward, back and forward again.
    """

    async def work(place: _Place) -> list[str]:
        return await check_migrations(
            place.migrations,
            Base.metadata,
            place.tables,
            target=target,
            everything=everything or temporary,
            rehearse=temporary,
        )

    try:
        problems = _run(target, work, temporary=temporary)
    except MigrationError as error:
        problems = [error.message]
    for problem in problems:
        typer.echo(problem)
    if problems:
        raise typer.Exit(1)
    typer.echo(f"{target}: models, revisions and schema agree")


@app.command()
def sql(
    target: Target,
    *,
    start: Annotated[str, typer.Option("--from", help="The revision that the schema is at.")] = (
        "base"
    ),
    end: Annotated[str, typer.Option("--to", help="The revision it is to be at.")] = "head",
) -> None:
    """Print the SQL of the upgrade, to be run by hand; needs no database."""
    typer.echo(asyncio.run(_place(target).migrations.sql(start, end)), nl=False)


@app.command()
def squash(
    target: Target,
    *,
    write: Annotated[
        bool, typer.Option("--write", help="Put it in the place of the revision files.")
    ] = False,
) -> None:
    """Make one revision of all: the schema as they leave it, proved on a temporary database.

    It has the number of the newest, so a schema that is there already stays as it is and new ones
    are made in one step. Schemas still before it are refused with a sentence (it lists what it
    `replaces`): bring them to the newest with the release before.
    """

    async def work(place: _Place) -> tuple[Migrations, str]:
        from shared.dev.postgres_server import postgres_program  # noqa: PLC0415 - with dev alone

        pg_dump = postgres_program("pg_dump")
        return place.migrations, await squash_revisions(place.migrations, pg_dump=pg_dump)

    migrations, baseline = _run(target, work, temporary=True)
    number = ", ".join(migrations.heads())
    if not write:
        typer.echo(baseline, nl=False)
        return
    old = [path for path in migrations.folder.glob("*.py") if path.name != "__init__.py"]
    path = migrations.folder / f"rev_{number}_baseline.py"
    for one in old:
        one.unlink()
    path.write_text(baseline, encoding="utf-8")
    typer.echo(
        f"{_short(path)} replaces {len(old)} files. Release it when every schema is at {number}."
    )


def _place(
    target: str,
    service: Service[ServiceSettings] | None = None,
    database: Database | None = None,
) -> _Place:
    service = service or load_service(target)
    if database is None:
        settings = service.load_settings()
        database = Database(settings.database, schema=_schema(service, settings))
    package = _package(service, target)
    if package and importlib.util.find_spec(package) and "." in package:
        models = f"{package}.models"
        if importlib.util.find_spec(models):
            importlib.import_module(models)
    return _Place(
        target, Migrations(database, service.migrations), models_of(Base.metadata, package)
    )


def _schema(service: Service[ServiceSettings], settings: ServiceSettings) -> str:
    return settings.database.schema_name or service.schema


def _package(service: Service[ServiceSettings], target: str) -> str:
    """The package that a service's modules are in; empty for a service in one file."""
    if isinstance(service.migrations, str) and not service.migrations.startswith("shared."):
        return service.migrations.rpartition(".")[0]
    name = target.partition(":")[0]
    return "" if name.endswith(".py") else name.removesuffix(".service")


def _run(target: str, work: Callable[[_Place], Awaitable[R]], *, temporary: bool = False) -> R:
    async def run() -> R:
        service = load_service(target)
        async with AsyncExitStack() as stack:
            if temporary:
                database = await stack.enter_async_context(_temporary(service))
            else:
                settings = service.load_settings()
                database = await stack.enter_async_context(
                    Database(settings.database, schema=_schema(service, settings))
                )
                await _reach(database, target)
            return await work(_place(target, service, database))

    return asyncio.run(run())


async def _reach(database: Database, target: str) -> None:
    try:
        await database.ping()
    except DatabaseError as error:
        raise DatabaseError(
            f"{error.message}. Start one (glam up), or let glam config show {target} --origin say "
            "where that address comes from; check and new take --temporary",
            operation="connect",
        ) from error


@asynccontextmanager
async def _temporary(service: Service[ServiceSettings]) -> AsyncIterator[Database]:
    try:
        from shared.dev import PostgresServer  # noqa: PLC0415 - only the extra "dev" brings it
    except ImportError as error:
        raise missing_extra("dev", error) from error
    async with PostgresServer() as server, Database(server.settings, schema=service.schema) as it:
        yield it


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
