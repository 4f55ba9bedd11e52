"""The first design's path to `shared.logging`."""

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
