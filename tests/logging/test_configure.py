from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from shared.config import LoggingSettings
from shared.logging import configure_logging, create_logger

if TYPE_CHECKING:
    from pathlib import Path

Lines = Callable[[], list[dict[str, Any]]]


def written() -> None:
    """Wait for the thread that writes the file."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def test_a_second_set_up_replaces_the_first(lines: Lines, tmp_path: Path) -> None:
    file = tmp_path / "credit.log"
    for level in ("INFO", "DEBUG", "INFO"):
        settings = LoggingSettings(level=level, file=file)
        configure_logging(settings, service="credit-service", environment="prod")
    logging.getLogger("any").info("once")
    logging.getLogger("any").debug("never")
    assert [line["message"] for line in lines()] == ["once"]
    written()
    assert len(file.read_text().splitlines()) == 1


def test_making_loggers_adds_no_handlers(lines: Lines) -> None:
    for _ in range(100):
        create_logger("credit-service")
    create_logger("credit-service").info("once")
    assert len(lines()) == 1
    assert logging.getLogger("credit-service").handlers == []


def test_lines_of_other_libraries_look_the_same(lines: Lines) -> None:
    uvicorn = logging.getLogger("uvicorn.access")
    uvicorn.addHandler(logging.StreamHandler())
    uvicorn.propagate = False
    settings = LoggingSettings()
    configure_logging(settings, service="credit-service", environment="prod")
    uvicorn.info('%s - "%s %s"', "127.0.0.1", "GET", "/")
    structlog.get_logger("theirs").info("bound %s", "well", name="n", merchant_id="m")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    ours = create_logger("ours")
    ours.info("mine")
    written = lines()
    assert [line["logger"] for line in written] == [
        "uvicorn.access",
        "theirs",
        "py.warnings",
        "ours",
    ]
    assert {line["service"] for line in written} == {"credit-service"}
    assert written[0]["message"] == '127.0.0.1 - "GET /"'
    assert written[1].items() >= {"message": "bound well", "name": "n", "merchant_id": "m"}.items()


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_what_libraries_tell_of_their_own_setting_up_is_for_debugging(
    lines: Lines, level: Any
) -> None:
    settings = LoggingSettings(level=level)
    configure_logging(settings, service="credit-service", environment="prod")
    for name in ("alembic.runtime.plugins", "shared.database.engine.pool.MeasuredPool"):
        logging.getLogger(name).info("setting up")
    assert len(lines()) == (2 if level == "DEBUG" else 0)


@pytest.mark.parametrize(
    ("format_", "environment", "json_lines"),
    [
        ("auto", "dev", False),
        ("auto", "staging", True),
        ("auto", "prod", True),
        ("json", "dev", True),
        ("console", "prod", False),
    ],
)
def test_json_in_production_a_line_to_read_in_development(
    format_: str, environment: str, json_lines: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = LoggingSettings(format=format_)
    configure_logging(settings, service="credit-service", environment=environment)
    logging.getLogger("any").info("hello")
    assert capfd.readouterr().out.startswith("{") is json_lines


def test_the_file_is_rotated_and_five_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.logging.configure._FILE_BYTES", 1000)
    file = tmp_path / "made" / "credit.log"
    settings = LoggingSettings(file=file, format="console")
    configure_logging(settings, service="credit-service", environment="dev")
    for number in range(100):
        logging.getLogger("any").info("line %d", number)
    written()
    names = sorted(path.name for path in file.parent.iterdir())
    assert names == ["credit.log", *(f"credit.log.{n}" for n in range(1, 6))]
    assert json.loads(file.read_text().splitlines()[-1])["message"] == "line 99"


def test_without_set_up_the_first_line_sets_up_from_the_environment(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_ENV", "prod")
    monkeypatch.setenv("LOG_LEVEL", "warning")
    logger = create_logger("credit-service")
    logger.info("quiet")
    logger.warning("loud", merchant_id=7)
    (line,) = capfd.readouterr().out.splitlines()
    expected = {"message": "loud", "service": "credit-service", "merchant_id": 7}
    assert json.loads(line).items() >= {**expected, "environment": "prod"}.items()


def test_importing_is_light_and_has_no_effect(tmp_path: Path) -> None:
    code = """
import logging, sys
import shared.logging, shared.tracing
shared.logging.create_logger("quiet")
assert not logging.getLogger().handlers
heavy = {"fastapi", "starlette", "sqlalchemy", "nats", "structlog", "prometheus_client", "rich"}
assert heavy.isdisjoint(sys.modules), heavy & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []
