"""One configured value and where it comes from: what the files and the variables are read into."""

from __future__ import annotations

from dataclasses import dataclass

Path = tuple[str, ...]
"""A key as its steps: `("database", "host")` is `database.host`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value at a path, and its origin: a file with its line, or a variable."""

    path: Path
    value: object
    origin: str
    variable: bool = False
    unset: tuple[str, ...] = ()
    """The variables its text refers to that are not set."""

    @property
    def key(self) -> str:
        """The path with dots."""
        return ".".join(self.path)
