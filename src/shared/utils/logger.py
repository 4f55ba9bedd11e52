"""A path of the first design: what it names lives in `shared.logging`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.logging import (
        ConsoleFormatter,
        JsonFormatter,
        ServiceLogger,
        create_logger,
        request_context,
    )

__all__ = [
    "ConsoleFormatter",
    "JsonFormatter",
    "ServiceLogger",
    "create_logger",
    "request_context",
]

__getattr__, __dir__ = handed_on(__name__)
