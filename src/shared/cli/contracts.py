"""``glam contracts``: who says what to whom, as a table and as documents; and who would break."""

from __future__ import annotations

import asyncio
import json
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from typer.core import TyperGroup

from shared.cli.table import print_table
from shared.cli.target import (
    LOCAL,
    Targets,
    declared_contracts,
    discover_services,
    load_service,
    services_meant,
)
from shared.config import NatsSettings
from shared.contracts import (
    ContractLock,
    Impact,
    LockError,
    Reader,
    Verdict,
    asyncapi_document,
    compare_contracts,
    describe,
)
from shared.messaging import Bus, find_consumers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typer import Context

    from shared.contracts import ContractChange, ContractTable
    from shared.events import Contract
    from shared.messaging import ConsumerFacts
    from shared.service import Service


LOCK = Path("contracts.lock.json")


class Exit(IntEnum):
    """What a command ends with; 2 is typer's for a mistake in the command line."""

    BREAKING = 1
    STALE = 3


class _Verbs(TyperGroup):
    """Lists when no verb is named: `glam contracts services.credit`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_Verbs,
    help="Who says what to whom: list, document and lock contracts; see who would break. Of the "
    "services named; else of all here, and of what pyproject.toml lists as tool.glam.contracts.",
)

Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
LockFile = Annotated[Path, typer.Option("--lock", help="The lock file.", metavar="FILE")]


@app.command("list")
def list_contracts(targets: Targets = None, *, as_json: Json = False) -> None:
    """List every subject with its stream, payload, version, producers and consumers."""
    found = _table(targets)
    if as_json:
        rows = [
            {
                "subject": row.subject,
                "stream": row.stream,
                "payload": row.payload,
                "version": row.version,
                "schema_hash": row.contract.schema_hash,
                "producers": row.producers,
                "consumers": row.consumers,
            }
            for row in found.rows
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    print_table(
        ("subject", "stream", "payload", "version", "producers", "consumers"),
        (
            (
                row.subject,
                row.stream or "none",
                row.payload,
                row.version,
                ", ".join(row.producers),
                ", ".join(row.consumers),
            )
            for row in found.rows
        ),
    )
    for subject in found.disputed:
        typer.echo(f"{subject} is declared in more than one form", err=True)


@app.command()
def asyncapi(
    targets: Targets = None,
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="YAML, or JSON if it is named so.", metavar="FILE"),
    ] = None,
    as_json: Json = False,
    title: Annotated[str | None, typer.Option(help="By default the services' names.")] = None,
    version: Annotated[str, typer.Option(help="Of the document.")] = "1.0.0",
    cloudevents: Annotated[
        bool, typer.Option("--cloudevents", help="Each message as a CloudEvent too.")
    ] = False,
) -> None:
    """Write the AsyncAPI 3.0 document of the services."""
    document = asyncapi_document(
        _services(targets),
        declared=_declared(targets),
        title=title,
        version=version,
        cloudevents=cloudevents,
    )
    if as_json or (output is not None and output.suffix == ".json"):
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    else:
        text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    if output is None:
        typer.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    count = len(document["operations"])
    typer.echo(f"{output}: {len(document['channels'])} channels, {count} operations")


@app.command()
def schemas(
    targets: Targets = None,
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder; made if it is not there.", metavar="DIR")
    ],
    base: Annotated[
        str, typer.Option(help="What the $id of each schema begins with.")
    ] = "urn:glam:contract:",
) -> None:
    """Write a JSON Schema (2020-12) for each subject and version."""
    table = _table(targets)
    locked = ContractLock.of(table)  # refuses two forms of one version
    output.mkdir(parents=True, exist_ok=True)
    for row in table.rows:
        name = f"{row.subject}.v{row.version}"
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"{base}{name}",
            **row.contract.schema(),
        }
        text = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        (output / f"{name}.json").write_text(text, encoding="utf-8")
    typer.echo(f"{output}: {len(locked.contracts)} schemas")


@app.command()
def lock(
    targets: Targets = None,
    *,
    file: LockFile = LOCK,
    accept_breaking: Annotated[
        bool, typer.Option("--accept-breaking", help="Lock breaking changes too.")
    ] = False,
) -> None:
    """Write the contracts as they are to the lock file; breaking changes only when told to."""
    table = _table(targets)
    present = ContractLock.of(table)
    if file.exists():
        changes = compare_contracts(_read(file), table)
        _tell(changes)
        if any(change.breaking for change in changes) and not accept_breaking:
            typer.echo(
                f"{file} stays as it is: change the code as shown, or lock with --accept-breaking "
                "when nobody speaks the contract any more",
                err=True,
            )
            raise typer.Exit(Exit.BREAKING)
    file.write_text(present.encode(), encoding="utf-8")
    typer.echo(f"{file}: {len(present.contracts)} contracts")


@app.command()
def check(
    targets: Targets = None,
    *,
    file: LockFile = LOCK,
    allow_stale: Annotated[
        bool, typer.Option("--allow-stale", help="Compatible changes may wait for their lock.")
    ] = False,
) -> None:
    """Compare the contracts with the lock file: 1 on a breaking change, 3 if it is only stale."""
    table = _table(targets)
    if not file.exists():
        typer.echo(f"there is no {file}: write it with `glam contracts lock`, commit it", err=True)
        raise typer.Exit(Exit.STALE)
    changes = compare_contracts(_read(file), table)
    _tell(changes)
    if any(change.breaking for change in changes):
        raise typer.Exit(Exit.BREAKING)
    if changes:
        typer.echo(f"{file} is stale: run `glam contracts lock` and commit it")
        raise typer.Exit(0 if allow_stale else Exit.STALE)
    typer.echo(f"{len(table.rows)} contracts are as locked")


@app.command()
def impact(
    target: Annotated[
        str | None,
        typer.Argument(help="The producer; by default all services here.", metavar="[SERVICE]"),
    ] = None,
    *,
    subject: Annotated[str | None, typer.Option(help="Only this one, from any sender.")] = None,
    servers: Annotated[
        str,
        typer.Option(
            "--servers",
            "--nats",
            envvar="GLAM_NATS_SERVERS",
            help="NATS addresses, separated by commas.",
        ),
    ] = LOCAL,
    as_json: Json = False,
) -> None:
    """Ask the live broker whose consumers the contracts, as they are here, would break."""
    contracts = _written(_table([target] if target else None), subject)
    judged = asyncio.run(_judge(servers, contracts))
    if as_json:
        typer.echo(json.dumps([_row(*each) for each in judged], indent=2))
    else:
        _show(contracts, judged)
    if any(impact.verdict in {Verdict.BREAKS, Verdict.UNKNOWN} for *_, impact in judged):
        raise typer.Exit(Exit.BREAKING)


# -- who would break -----------------------------------------------------------------------------

_Judged = tuple["Contract[Any]", "ConsumerFacts", "Reader | None", Impact]


def _written(table: ContractTable, subject: str | None) -> list[Contract[Any]]:
    rows = table.rows
    if subject is None:
        found = [row.contract for row in rows if row.producers]
        if not found:
            raise typer.BadParameter("no service here publishes anything: name one, or --subject")
        return found
    found = [row.contract for row in rows if row.subject == subject]
    if not found:
        raise typer.BadParameter(f"no contract is declared on {subject}")
    return found


async def _judge(servers: str, contracts: Iterable[Contract[Any]]) -> list[_Judged]:
    judged: list[_Judged] = []
    async with Bus(NatsSettings(servers=tuple(servers.split(","))), name="glam-cli") as bus:
        for contract in contracts:
            for consumer in await find_consumers(bus, contract.subject):
                reader = Reader.parse(consumer.metadata)
                judged.append((contract, consumer, reader, _verdict(contract, reader)))
    return judged


def _verdict(contract: Contract[Any], reader: Reader | None) -> Impact:
    if reader is None or reader.subject != contract.subject:
        return Impact(Verdict.SILENT, ("it does not say what it reads",))
    return reader.impact(contract)


def _row(
    contract: Contract[Any], consumer: ConsumerFacts, reader: Reader | None, impact: Impact
) -> dict[str, Any]:
    return {
        "subject": contract.subject,
        "version": contract.version,
        "schema_hash": contract.schema_hash,
        "stream": consumer.stream,
        "consumer": consumer.name,
        "service": reader.service if reader else None,
        "reads_versions": reader.readable if reader else None,
        "reads_schema_hash": reader.schema_hash if reader else None,
        "verdict": impact.verdict.value,
        "reasons": impact.reasons,
    }


def _show(contracts: Sequence[Contract[Any]], judged: Sequence[_Judged]) -> None:
    rows = [
        (
            contract.subject,
            f"v{contract.version} {contract.schema_hash[:8]}",
            consumer.name,
            reader and reader.service,
            reader and f"v{reader.version} {reader.schema_hash[:8]}",
            impact.verdict,
            "; ".join(impact.reasons),
        )
        for contract, consumer, reader, impact in judged
    ]
    if rows:
        headings = ("subject", "written", "consumer", "service", "reads", "verdict", "because")
        print_table(headings, rows)
    heard = {contract.subject for contract, *_ in judged}
    for contract in contracts:
        if contract.subject not in heard:
            typer.echo(f"{contract.subject}: no consumer on this server")


# -- the rest ------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Writes everything out: anchors are of no help to readers of an AsyncAPI document."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _services(targets: Sequence[str] | None) -> list[Service[Any]]:
    return [load_service(target) for target in targets or discover_services(Path.cwd())]


def _declared(targets: Sequence[str] | None) -> tuple[Contract[Any], ...]:
    """Return what pyproject.toml declares besides; who names services means theirs alone."""
    return () if targets else declared_contracts(Path.cwd())


def _table(targets: Sequence[str] | None) -> ContractTable:
    services, declared = _services(targets), _declared(targets)
    if not services and not declared:
        services_meant(targets, "glam contracts list invoice.py")
    return describe(services, declared=declared)


def _read(file: Path) -> ContractLock:
    try:
        return ContractLock.decode(file.read_text(encoding="utf-8"))
    except LockError as error:
        raise LockError(f"{file}: {error.message}") from error


def _tell(changes: Iterable[ContractChange]) -> None:
    for change in changes:
        where = f"{change.place}: " if change.place is not None else ""
        typer.echo(
            f"{where}{change.kind}: {change.subject} version {change.version} {change.what}",
            err=change.breaking,
        )
        for reason in change.reasons:
            typer.echo(f"    {reason}", err=change.breaking)
        if change.remedy:
            typer.echo("  What to do:", err=change.breaking)
            for line in change.remedy.splitlines():
                typer.echo(f"    {line}".rstrip(), err=change.breaking)
