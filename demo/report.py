"""What is shown: where to look, the trace, the checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from demo.deployment import SERVICES
from shared.dev.trace_tree import render_trace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from demo.checks import Check
    from demo.deployment import Deployment
    from shared.dev.trace_tree import SpanRecord

__all__ = ["show_addresses", "show_checks", "show_trace"]


def show_addresses(console: Console, deployment: Deployment) -> None:
    """Say where to look while it runs."""
    table = _grid(columns=3)
    for name in SERVICES:
        address = deployment.address(name)
        table.add_row(name, f"{address}/api/v1/docs", f"{address}/metrics")
    table.add_row("PostgreSQL", deployment.postgres.url, "schemas " + ", ".join(SERVICES))
    table.add_row("NATS", deployment.nats.url, f"glam dlq list --servers {deployment.nats.url}")
    table.add_row("mail", str(deployment.mailbox.data_dir / "new"), "one file each")
    table.add_row("logs", str(deployment.logs), f"glam trace ID --logs {deployment.logs}")
    _print(console, table)


def show_trace(console: Console, story: Sequence[SpanRecord]) -> None:
    """Draw the trace."""
    console.print(f"\n[bold]From the webhook to the mail[/]: trace {story[0].trace_id}\n")
    _print(console, render_trace(story))


def show_checks(console: Console, checks: Sequence[Check], seconds: float) -> None:
    """Show every check with its numbers, and the sum of it."""
    table = _grid(columns=3)
    for check in checks:
        verdict = Text("ok", "green") if check.ok else Text("FAILED", "bold red")
        table.add_row(verdict, check.name, Text(check.detail, "dim"))
    console.print("\n[bold]Checked[/] in the database, the mailbox, the bus and the logs\n")
    _print(console, table)
    failed = sum(not check.ok for check in checks)
    sentence = f"{failed} of {len(checks)} checks FAILED" if failed else "everything holds"
    console.print(
        f"\n{sentence}, after {seconds:.0f} s", style="bold red" if failed else "bold green"
    )


def _grid(*, columns: int) -> Table:
    table = Table.grid(padding=(0, 2))
    for _ in range(columns):
        table.add_column(overflow="fold")  # an address that is cut off leads nowhere
    return table


def _print(console: Console, table: Table) -> None:
    console.print(Padding(table, (0, 0, 0, 2), expand=False), highlight=False)
