"""Levels that change while the process runs, and change back by themselves."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

ROOT = "root"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoggerLevel:
    """The level of a logger that has one of its own."""

    logger: str
    level: str
    configured: str
    """What it is without `set_log_level`; `NOTSET` takes the level of the logger above."""
    until: datetime | None = None
    """When it changes back by itself."""


@dataclass(slots=True)
class _Change:
    before: int
    until: datetime | None = None
    end: threading.Timer | None = None


_guard = threading.RLock()
_changes: dict[str, _Change] = {}


def set_log_level(logger: str | None, level: str | None, for_seconds: float | None = None) -> None:
    """Change the level of a logger of this process, and of those below it without one of their own.

    A second call for the same logger replaces the first; what it goes back to stays what was
    configured. Other processes and replicas keep their levels.

    Args:
        logger: the logger's name; `None` or `root` for the root of all.
        level: a level's name, such as `DEBUG`; `None` goes back to what was configured.
        for_seconds: go back after so long; `None` waits for the next call, or for the end.

    Raises:
        ValueError: no such level, or a time that is not positive.
    """
    name = logger or ROOT
    number = None if level is None else logging.getLevelNamesMapping().get(level.upper())
    if level is not None and not number:
        raise ValueError(f"{level!r} is not a level, such as DEBUG or WARNING")
    if for_seconds is not None and not 0 < for_seconds <= threading.TIMEOUT_MAX:
        raise ValueError(f"for_seconds is {for_seconds}: it must be above 0, and finite")
    with _guard:
        if number is None:
            _undo(name)
            return
        target = logging.getLogger(name)
        length = "" if for_seconds is None else f" for {for_seconds:g} s"
        _logger.warning(
            "level of %s: %s, was %s%s", name, level, logging.getLevelName(target.level), length
        )
        change = _changes.setdefault(name, _Change(target.level))
        if change.end is not None:
            change.end.cancel()
        _changes[name] = change = _Change(change.before)
        if for_seconds is not None:
            change.until = datetime.now(UTC) + timedelta(seconds=for_seconds)
            change.end = threading.Timer(for_seconds, _time_is_up, (name, change))
            change.end.daemon = True
            change.end.start()
        target.setLevel(number)


def log_levels() -> list[LoggerLevel]:
    """List the root logger and all that have a level of their own, or had before a change."""
    with _guard:
        loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.copy().values()]
        return [
            _described(logger)
            for logger in loggers
            if isinstance(logger, logging.Logger) and (logger.level or logger.name in _changes)
        ]


def has_logger(name: str) -> bool:
    """Say whether there is a logger of this name, or one below it."""
    return name == ROOT or name in logging.getLogger().manager.loggerDict


def undo_changes() -> None:
    """Go back to the configured levels."""
    with _guard:
        for name in list(_changes):
            _undo(name)


def _described(logger: logging.Logger) -> LoggerLevel:
    change = _changes.get(logger.name)
    return LoggerLevel(
        logger.name,
        logging.getLevelName(logger.level),
        logging.getLevelName(logger.level if change is None else change.before),
        None if change is None else change.until,
    )


def _time_is_up(name: str, change: _Change) -> None:
    with _guard:
        if _changes.get(name) is change:
            _undo(name)


def _undo(name: str) -> None:
    change = _changes.pop(name, None)
    if change is None:
        return
    if change.end is not None:
        change.end.cancel()
    logging.getLogger(name).setLevel(change.before)
    _logger.warning("level of %s: %s again", name, logging.getLevelName(change.before))
