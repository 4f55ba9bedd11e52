"""Where log records go: one handler on the root logger, and a file on request."""

from __future__ import annotations

import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

from shared.config.settings import LoggingSettings
from shared.logging._structlog import adopt_structlog
from shared.logging.formatters import ConsoleFormatter, JsonFormatter
from shared.logging.standard_output import StandardOutput

if TYPE_CHECKING:
    from pathlib import Path

_FILE_BYTES = 10 * 1024 * 1024
_FILES_KEPT = 5
_OUTPUT, _FILE = "glam.output", "glam.file"

# Loggers that come with handlers of their own, so that their lines would look different.
_OWN_HANDLERS = ("uvicorn", "uvicorn.access", "uvicorn.error")


def configure_logging(settings: LoggingSettings, *, service: str, environment: str) -> None:
    """Send every record of this process to standard output, and to a file if the settings name one.

    Lines of other libraries come out the same. A second call replaces the first; handlers that
    others put on the root logger stay. The file is always JSON lines, rotated at 10 MB with five
    old ones kept; its folder is made if need be.
    """
    root = logging.getLogger()
    for handler in [h for h in root.handlers if h.get_name() in {_OUTPUT, _FILE}]:
        root.removeHandler(handler)
        handler.close()
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    root.setLevel(settings.level)
    output = StandardOutput()
    output.set_name(_OUTPUT)
    output.setFormatter(_formatter(settings, service, environment))
    root.addHandler(output)
    if settings.file is not None:
        root.addHandler(
            _file_handler(settings.file, JsonFormatter(service, environment=environment))
        )
    logging.captureWarnings(capture=True)
    adopt_structlog()


def ensure_configured(service: str) -> None:
    """Set logging up from `LOG_LEVEL` and `APP_ENV`, unless it is set up."""
    if any(handler.get_name() == _OUTPUT for handler in logging.getLogger().handlers):
        return
    level = os.environ.get("LOG_LEVEL", "INFO").upper()
    settings = LoggingSettings.model_validate(
        {"level": level if level in logging.getLevelNamesMapping() else "INFO"}
    )
    configure_logging(settings, service=service, environment=os.environ.get("APP_ENV", "dev"))


def _formatter(settings: LoggingSettings, service: str, environment: str) -> logging.Formatter:
    console = settings.format == "console" or (settings.format == "auto" and environment == "dev")
    if not console:
        return JsonFormatter(service, environment=environment)
    colours = sys.stdout is not None and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return ConsoleFormatter(service, colours=colours)


def _file_handler(file: Path, formatter: logging.Formatter) -> logging.Handler:
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(
        file,
        maxBytes=_FILE_BYTES,
        backupCount=_FILES_KEPT,
        encoding="utf-8",
        errors="backslashreplace",
        delay=True,
    )
    handler.set_name(_FILE)
    handler.setFormatter(formatter)
    return handler
