"""The logger of a service: printf arguments, and free keywords that become fields."""

from __future__ import annotations

import logging
from typing import Any

from shared.logging.configure import ensure_configured
from shared.logging.record import FIELDS, log_directly
from shared.logging.request_context import bind_fields, clear_fields

_OPTIONS = frozenset({"exc_info", "extra", "stack_info", "stacklevel"})
"""What the standard library takes as keywords; every other one is a field."""


class ServiceLogger:
    """A face of the standard logger of the same name; making one costs nothing and adds nothing.

    Where nobody called `configure_logging`, the first line logged sets it up from the variables
    `LOG_LEVEL` and `APP_ENV`.
    """

    def __init__(self, service_name: str) -> None:
        self.service_name = service_name
        self.logger = logging.getLogger(service_name)

    def set_request_context(self, /, **kwargs: object) -> None:
        """Add fields to every line of this task, whichever logger writes it."""
        bind_fields(kwargs)

    def clear_request_context(self) -> None:
        """Take this task's fields away."""
        clear_fields()

    def debug(self, /, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at DEBUG; see `log`."""
        self._log(logging.DEBUG, msg, args, kwargs)

    def info(self, /, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at INFO; see `log`."""
        self._log(logging.INFO, msg, args, kwargs)

    def warning(self, /, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at WARNING; see `log`."""
        self._log(logging.WARNING, msg, args, kwargs)

    def error(self, /, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at ERROR; see `log`."""
        self._log(logging.ERROR, msg, args, kwargs)

    def exception(self, /, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at ERROR with the exception being handled; see `log`."""
        self._log(logging.ERROR, msg, args, {"exc_info": True, **kwargs})

    def critical(self, /, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at CRITICAL; see `log`."""
        self._log(logging.CRITICAL, msg, args, kwargs)

    def log(self, /, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at a level.

        Args:
            level: a level of the standard library's, such as `logging.INFO`.
            msg: the message, with printf marks for `args`.
            *args: what goes into the message.
            **kwargs: `exc_info`, `stack_info`, `stacklevel` and `extra` as in the standard library;
                any other keyword is a field. Fields and the keys of `extra` may have any name.
        """
        self._log(level, msg, args, kwargs)

    def _log(
        self, level: int, msg: object, args: tuple[object, ...], fields: dict[str, Any]
    ) -> None:
        if _OPTIONS.isdisjoint(fields) and log_directly(self.logger, level, msg, args, fields):
            return
        ensure_configured(self.service_name)
        if self.logger.isEnabledFor(level):
            options = {name: fields.pop(name) for name in _OPTIONS & fields.keys()}
            fields = {**(options.pop("extra", None) or {}), **fields}
            stacklevel = options.pop("stacklevel", 1) + 2
            self.logger.log(
                level, msg, *args, **options, stacklevel=stacklevel, extra={FIELDS: fields}
            )


def create_logger(service_name: str) -> ServiceLogger:
    """Make the logger of a name. Loggers of one name write to the same place.

    >>> configure_logging(LoggingSettings(), service="till-service", environment="prod")
    >>> create_logger("till").info("order %s paid", "7", amount="9.90")
    {"timestamp":"...","level":"INFO","message":"order 7 paid",...,"logger":"till","amount":"9.90"}
    """
    return ServiceLogger(service_name)
