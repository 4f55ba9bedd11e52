"""Tables as all verbs print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

_ONE_LINE = 10_000
"""A width, in characters, that no row reaches."""


def print_table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table in which nothing is cut off: what does not fit goes on in the next line.

    A file or another program, such as `grep`, gets each row as one line. Cells are shown as they
    are, brackets too; `None` is an empty cell.
    """
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = _ONE_LINE
    console.print(table)
