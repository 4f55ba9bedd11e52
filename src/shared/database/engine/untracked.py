"""Statements that the library adds to a transaction of its own accord."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.engine import ExecutionContext

__all__ = ["ASIDE", "is_aside"]

ASIDE = {"glam_aside": True}
"""Execution options of a statement that tells PostgreSQL something, such as the merchant.

Spans and the log of slow statements are about what the service asked for, and leave it out.
"""


def is_aside(context: ExecutionContext) -> bool:
    """Whether the statement has these options."""
    return bool(context.execution_options.get("glam_aside"))
