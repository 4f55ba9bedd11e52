"""The errors as a list, for documentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors.base import GlamBaseError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One class of error, as its readers see it."""

    error: type[GlamBaseError]
    depth: int
    """How far below the root."""

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.error.__name__

    @property
    def code(self) -> str:
        """What ``error.code`` says in the answer."""
        return self.error.code

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.error.status

    @property
    def details(self) -> tuple[str, ...]:
        """The keys that ``details`` may hold, besides those of the moment."""
        return self.error.detail_fields

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (self.error.__doc__ or "").strip().partition("\n")[0]


def catalogue() -> tuple[CatalogueEntry, ...]:
    """List the error classes that are loaded, a service's own too: by name, after their parent."""
    return tuple(_walk(GlamBaseError, 0))


def _walk(error: type[GlamBaseError], depth: int) -> Iterator[CatalogueEntry]:
    yield CatalogueEntry(error, depth)
    for child in sorted(error.__subclasses__(), key=lambda child: child.__name__):
        yield from _walk(child, depth + 1)
