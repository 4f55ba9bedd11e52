"""The linter of revisions, by families of rules."""

from shared.database.migrations.lint.finding import RULES, Finding
from shared.database.migrations.lint.linter import lint

__all__ = ["RULES", "Finding", "lint"]
