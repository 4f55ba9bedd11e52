"""``glam doctor``: what runs, judged against what the services declare."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated

import typer

from shared.cli.target import Targets, load_service, services_meant

if TYPE_CHECKING:
    from shared.doctor import Finding


_UNREACHED = frozenset({"nats-unreachable", "database-unreachable", "settings"})

# From worst to best.
_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "ok": "green"}


def doctor(
    targets: Targets = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Write a JSON array.")] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Tell of these alone; repeatable.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Pass these over; repeatable.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail too.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Tell what is well, too.")] = False,
    monitoring: Annotated[
        str | None,
        typer.Option(metavar="URL", help="NATS's monitoring; by default port 8222 of its server."),
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, help="How many of each service run; by default as many as are seen."),
    ] = None,
) -> None:
    """Judge streams, consumers, servers and outboxes against what services declare.

    Nothing is changed. Ends with 0 when all is well, 1 with errors (--strict: warnings too), and 2
    when nothing could be looked at.
    """
    from shared.doctor import CODES, examine  # noqa: PLC0415 - keeps `glam --help` quick

    for code in [*(only or ()), *(skip or ())]:
        if code not in CODES:
            raise typer.BadParameter(f"{code!r} is not a code; there are: {', '.join(CODES)}")
    chosen = services_meant(targets, "glam doctor hello.py")
    with redirect_stdout(sys.stderr):  # what services log or print is no part of the answer
        services = [load_service(target) for target in chosen]
        everything = asyncio.run(
            examine(
                services,
                targets={s.name: target for s, target in zip(services, chosen, strict=True)},
                monitoring=monitoring,
                replicas=replicas,
            )
        )
    told = [
        finding
        for finding in everything
        if (not only or finding.code in only) and finding.code not in (skip or ())
    ]
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in told], indent=2))
    else:
        _print(told, show_all=show_all)
    raise typer.Exit(_status(everything, told, strict=strict))


def _status(everything: list[Finding], told: list[Finding], *, strict: bool) -> int:
    looked = [f for f in everything if f.code not in {*_UNREACHED, "contracts"}]
    if not looked and any(f.code in _UNREACHED for f in everything):
        return 2
    fatal = {"error", "warning"} if strict else {"error"}
    return int(any(finding.severity in fatal for finding in told))


def _print(findings: list[Finding], *, show_all: bool) -> None:
    from rich.console import Console  # noqa: PLC0415 - `glam run` waits for this module
    from rich.markup import escape  # noqa: PLC0415

    console = Console(soft_wrap=True, highlight=False)
    order = list(_COLOURS)
    for finding in sorted(findings, key=lambda f: order.index(f.severity)):
        well = finding.severity == "ok"
        if well and not show_all:
            continue
        colour = _COLOURS[finding.severity]
        console.print(
            f"[{colour}]{finding.severity.value:<8}[/]{finding.code}: {escape(finding.about)}"
        )
        console.print(f"        {escape(finding.what)}")
        if not well:
            console.print(f"        [dim]why[/]  {finding.why}")
            console.print(f"        [dim]fix[/]  {escape(finding.fix)}")
    counts = Counter(finding.severity.value for finding in findings)
    console.print(", ".join(f"{counts[severity]} {severity}" for severity in order))
