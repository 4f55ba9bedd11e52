"""The one error of the configuration: it lists every mistake at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, and the file and line or the variable where it stands."""

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}" if self.where else self.problem


class ConfigError(Exception):
    """The configuration cannot be used. The text never holds a secret.

    >>> variables = {"TILL_DB_PORT": "many"}
    >>> load_settings(ServiceSettings, "till-service", root=root, environ=variables)
    ConfigError: till-service: TILL_DB_PORT: database.port: Input should be a valid integer...

    Attributes:
        subject: the service, or what was looked for.
        mistakes: all that were found, each with its file and line or its variable.
    """

    def __init__(self, subject: str, mistakes: Iterable[Mistake]) -> None:
        self.subject = subject
        self.mistakes = tuple(mistakes)
        super().__init__(subject, self.mistakes)

    def __str__(self) -> str:
        if len(self.mistakes) == 1:
            return f"{self.subject}: {self.mistakes[0]}"
        lines = "".join(f"\n  {mistake}" for mistake in self.mistakes)
        return f"{self.subject}: {len(self.mistakes)} mistakes in the configuration{lines}"
