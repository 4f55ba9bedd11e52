"""A path of the first design: what it names lives in `shared.logging`."""

from shared.logging import (
    ConsoleFormatter,
    JsonFormatter,
    ServiceLogger,
    create_logger,
    request_context,
)

__all__ = ["ConsoleFormatter", "JsonFormatter", "ServiceLogger", "create_logger", "request_context"]
