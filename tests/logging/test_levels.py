from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.config import LoggingSettings
from shared.logging import LoggerLevel, configure_logging, log_levels, set_log_level
from shared.logging.levels import _changes, has_logger, undo_changes

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    yield
    undo_changes()


def level(name: str | None = None) -> str:
    return logging.getLevelName(logging.getLogger(name).getEffectiveLevel())


def configure(**settings: Any) -> None:
    configure_logging(LoggingSettings(**settings), service="credit-service", environment="prod")


def timers() -> list[threading.Timer]:
    """Those that still run and are not cancelled."""
    running = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    return [timer for timer in running if not timer.finished.is_set()]


def test_a_level_changes_at_once_and_back(lines: Lines) -> None:
    configure(level="INFO")
    logger = logging.getLogger("levels.credit")
    logger.debug("before")
    set_log_level("levels", "debug")
    logger.debug("during")
    logging.getLogger("other").debug("elsewhere")
    set_log_level("levels", None)
    logger.debug("after")
    assert [line["message"] for line in lines()] == [
        "level of levels: debug, was NOTSET",
        "during",
        "level of levels: NOTSET again",
    ]


def test_without_a_name_it_is_the_level_of_all(lines: Lines) -> None:
    configure(level="INFO")
    for name in (None, "root"):
        set_log_level(name, "ERROR")
        assert level() == level("any") == "ERROR"
        set_log_level(name, None)
        assert level() == level("any") == "INFO"
    lines()


def test_after_its_time_the_level_is_what_it_was(lines: Lines) -> None:
    configure(level="INFO")
    set_log_level(None, "DEBUG", for_seconds=0.05)
    assert lines()[0]["message"] == "level of root: DEBUG, was INFO for 0.05 s"
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    assert level() == "INFO"
    assert lines()[-1]["message"] == "level of root: INFO again"


def test_a_second_change_replaces_the_first_and_its_end(lines: Lines) -> None:
    configure(level="INFO")
    set_log_level(None, "DEBUG", for_seconds=3600)
    first = _changes["root"].end
    assert first is not None
    set_log_level(None, "ERROR")
    first.join()  # cancelled, else this would take an hour
    first.function(*first.args, **first.kwargs)  # and had it been under way already
    assert level() == "ERROR"
    set_log_level(None, None)
    assert level() == "INFO"
    set_log_level(None, None)
    assert level() == "INFO"
    lines()


def test_setting_up_anew_takes_changes_away(lines: Lines) -> None:
    configure(level="INFO")
    set_log_level(None, "DEBUG", for_seconds=3600)
    set_log_level("levels", "DEBUG")
    configure(level="WARNING")
    assert (level(), level("levels")) == ("WARNING", "WARNING")
    assert not timers()
    lines()


def test_what_has_a_level_of_its_own_is_listed(lines: Lines) -> None:
    configure(level="INFO")
    set_log_level("levels.listed", "DEBUG", for_seconds=3600)
    found = {entry.logger: entry for entry in log_levels()}
    assert found["root"] == LoggerLevel("root", "INFO", "INFO")
    changed = found["levels.listed"]
    assert (changed.level, changed.configured) == ("DEBUG", "NOTSET")
    assert changed.until is not None
    assert timedelta(0) < changed.until - datetime.now(UTC) <= timedelta(hours=1)
    set_log_level("levels.listed", None)
    assert "levels.listed" not in {entry.logger for entry in log_levels()}
    lines()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_time_has_to_be_one(seconds: float) -> None:
    with pytest.raises(ValueError, match="it must be above 0"):
        set_log_level(None, "DEBUG", for_seconds=seconds)
    assert not _changes


@pytest.mark.parametrize("name", ["LOUD", "", "NOTSET"])
def test_a_level_has_to_be_one(name: str) -> None:
    with pytest.raises(ValueError, match="is not a level"):
        set_log_level(None, name)


def test_a_logger_is_known_with_those_above_it() -> None:
    logging.getLogger("levels.above.below")
    assert has_logger("root")
    assert has_logger("levels.above")
    assert not has_logger("levels.beside")
