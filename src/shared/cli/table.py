"""Tables as all verbs print them."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

_ONE_LINE = 10_000
"""A width, in characters, that no row reaches."""


def new_table(*headings: str) -> Table:
    """Make a table in which nothing is cut off: what does not fit goes on in the next line."""
    made = Table()
    for heading in headings:
        made.add_column(heading, overflow="fold")
    return made


def print_table(filled: Table) -> None:
    """Print a table; a file or another program, such as `grep`, gets each row as one line."""
    console = Console()
    if not console.is_terminal:
        console.width = _ONE_LINE
    console.print(filled)
