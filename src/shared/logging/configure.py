"""Where log records go: through one handler of the root logger to standard output and a file."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from shared.config.settings import LoggingSettings
from shared.logging._structlog import adopt_structlog
from shared.logging.formatters import ConsoleFormatter, JsonFormatter
from shared.logging.levels import undo_changes
from shared.logging.record import OUTPUT
from shared.logging.rotated_file import RotatedFile
from shared.logging.sampling import Sampling
from shared.logging.standard_output import StandardOutput

if TYPE_CHECKING:
    from pathlib import Path

_FILE_BYTES = 10 * 1024 * 1024
_FILES_KEPT = 5

# Loggers that come with handlers of their own, so that their lines would look different.
_OWN_HANDLERS = ("uvicorn", "uvicorn.access", "uvicorn.error")

# Loggers that tell at INFO what is ours to tell, or nobody's: httpx each URL with its query.
_TOO_TALKATIVE = ("alembic.runtime", "httpx", "shared.database.engine.pool", "sqlalchemy.pool")


def configure_logging(settings: LoggingSettings, *, service: str, environment: str) -> None:
    """Send every record of this process to standard output, and to a file if the settings name one.

    Lines of other libraries come out the same. A second call replaces the first; handlers that
    others put on the root logger stay, levels changed by `set_log_level` do not. The file is always
    JSON lines, rotated at 10 MB with five old ones kept; its folder is made if need be. Neither
    makes its caller wait: see `StandardOutput` and `RotatedFile`.

    >>> settings = LoggingSettings(level="INFO", file=folder / "till.log")
    >>> configure_logging(settings, service="till-service", environment="prod")
    >>> logging.getLogger("sqlalchemy").warning("the pool is full")
    {"timestamp":"...","service":"till-service","level":"WARNING","message":"the pool is full",...}
    >>> await eventually(lambda: "the pool is full" in settings.file.read_text())
    True
    """
    undo_changes()
    root = logging.getLogger()
    for handler in [h for h in root.handlers if h.get_name() == OUTPUT]:
        root.removeHandler(handler)
        handler.close()
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    for name in _TOO_TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING if settings.level == "INFO" else 0)
    root.setLevel(settings.level)
    json = JsonFormatter(service, environment=environment, redact_emails=settings.redact_emails)
    output = StandardOutput()
    output.setFormatter(_console(settings, service, environment) or json)
    targets: list[logging.Handler] = [output]
    if settings.file is not None:
        targets.append(_file_handler(settings.file, json))
    sampling = Sampling(
        targets,
        keep=settings.sample_keep,
        seconds=settings.sample_seconds,
        spans=settings.sample_spans,
    )
    sampling.set_name(OUTPUT)
    root.addHandler(sampling)
    logging.captureWarnings(capture=True)
    adopt_structlog()


def ensure_configured(service: str) -> None:
    """Set logging up from `LOG_LEVEL` and `APP_ENV`, unless it is set up."""
    for handler in logging.getLogger().handlers:
        if handler.name == OUTPUT:
            return
    level = os.environ.get("LOG_LEVEL", "INFO").upper()
    settings = LoggingSettings.model_validate(
        {"level": level if level in logging.getLevelNamesMapping() else "INFO"}
    )
    configure_logging(settings, service=service, environment=os.environ.get("APP_ENV", "dev"))


def _console(settings: LoggingSettings, service: str, environment: str) -> ConsoleFormatter | None:
    """Make the formatter for a person, if one is meant to read."""
    if settings.format == "json" or (settings.format == "auto" and environment != "dev"):
        return None
    colours = sys.stdout is not None and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    return ConsoleFormatter(service, colours=colours, redact_emails=settings.redact_emails)


def _file_handler(file: Path, formatter: logging.Formatter) -> logging.Handler:
    file.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatedFile(file, max_bytes=_FILE_BYTES, kept=_FILES_KEPT)
    handler.setFormatter(formatter)
    return handler
