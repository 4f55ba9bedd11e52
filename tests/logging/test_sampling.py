from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared.config import LoggingSettings
from shared.context import Context, bind
from shared.logging import configure_logging, create_logger
from shared.logging.sampling import Sampling
from shared.tracing import span

Lines = Callable[[], list[dict[str, Any]]]
Sample = Callable[..., None]

WINDOW = 3600.0
"""Long enough never to end by itself in a test."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time the windows go by; its one item is what it is now."""
    now = [0.0]
    monkeypatch.setattr("shared.logging.sampling.time.monotonic", lambda: now[0])
    yield now
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.cancel()


@pytest.fixture
def sample(lines: Lines) -> Sample:
    """Log JSON lines, three of each kept."""
    del lines

    def configure(**settings: Any) -> None:
        settings = {"level": "DEBUG", "sample_keep": 3, "sample_seconds": WINDOW, **settings}
        configure_logging(LoggingSettings(**settings), service="credit-service", environment="prod")

    return configure


def messages(lines: Lines) -> list[str]:
    return [line["message"] for line in lines()]


def test_of_a_repeated_line_the_first_are_written_and_then_a_count(
    lines: Lines, sample: Sample, clock: list[float]
) -> None:
    sample()
    logger = create_logger("any")
    for number in range(10):
        logger.info("order %d", number)
    assert messages(lines) == ["order 0", "order 1", "order 2"]
    clock[0] = WINDOW
    with bind(Context.start()):
        logger.info("order %d", 10, order="o")
    count, after = lines()
    assert count["message"] == "order %d … repeated 7 times"
    assert (count["level"], count["logger"], count["repeated"]) == ("INFO", "any", 7)
    assert "request_id" not in count
    assert after.items() >= {"message": "order 10", "order": "o"}.items()
    assert "request_id" in after


def test_the_count_is_written_though_nothing_more_is_logged(lines: Lines, sample: Sample) -> None:
    sample(sample_seconds=0.05)
    for _ in range(5):
        logging.getLogger("any").info("again")
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
    written = messages(lines)
    assert written[:3] == ["again"] * 3
    assert (
        sum(line == "again" for line in written)
        + sum(int(line.split()[-2]) for line in written if "repeated" in line)
        == 5
    )


def test_the_count_is_written_before_the_process_ends() -> None:
    code = """
import logging
from shared.config import LoggingSettings
from shared.logging import configure_logging
settings = LoggingSettings(sample_keep=1)
configure_logging(settings, service="credit-service", environment="prod")
for _ in range(5):
    logging.getLogger("any").info("again")
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert [json.loads(line)["message"] for line in done.stdout.splitlines()] == [
        "again",
        "again … repeated 4 times",
    ]


def test_lines_differ_by_logger_level_and_message_not_by_arguments(
    lines: Lines, sample: Sample
) -> None:
    sample(sample_keep=1)
    first, second = logging.getLogger("first"), logging.getLogger("second")
    for number in range(2):
        first.info("took %d", number)
        first.warning("took %d", number)
        second.info("took %d", number)
        second.info("gave %d", number)
    assert messages(lines) == ["took 0", "took 0", "took 0", "gave 0"]


def test_errors_are_always_written(lines: Lines, sample: Sample) -> None:
    sample(sample_keep=1)
    for _ in range(5):
        logging.getLogger("any").error("failed")
    assert messages(lines) == ["failed"] * 5


def test_spans_are_written_whole_unless_they_are_to_be_sampled(
    lines: Lines, sample: Sample
) -> None:
    def spans() -> list[str]:
        for _ in range(3):
            with span("debit"), span("charge"):
                pass
        return messages(lines)

    sample(sample_keep=1)
    assert spans() == ["span charge", "span debit"] * 3
    sample(sample_keep=1, sample_spans=True)
    assert spans() == ["span charge", "span debit"]


def test_nought_writes_every_line(lines: Lines, sample: Sample) -> None:
    sample(sample_keep=0)
    for _ in range(5000):
        logging.getLogger("any").debug("again")
    assert messages(lines) == ["again"] * 5000


def test_the_file_and_standard_output_have_the_same_lines(
    lines: Lines, sample: Sample, tmp_path: Any
) -> None:
    sample(file=tmp_path / "credit.log")
    for number in range(10):
        logging.getLogger("any").info("order %d", number)
    logging.getLogger().handlers[-1].close()
    written = messages(lines)
    assert written[-1] == "order %d … repeated 7 times"
    assert len((tmp_path / "credit.log").read_text().splitlines()) == len(written) == 4


def test_lines_that_are_never_the_same_fill_no_memory(lines: Lines, sample: Sample) -> None:
    sample(sample_keep=1)
    for number in range(3000):
        logging.getLogger("any").info(f"order {number}")  # noqa: G004
    assert len(messages(lines)) == 3000
    handler = logging.getLogger().handlers[-1]
    assert isinstance(handler, Sampling)
    assert len(handler._windows) == 1024


def test_windows_that_ended_are_forgotten(lines: Lines, sample: Sample, clock: list[float]) -> None:
    sample()
    for number in range(100):
        logging.getLogger("any").info(f"order {number}")  # noqa: G004
    clock[0] = WINDOW
    logging.getLogger("any").info("another")
    handler = logging.getLogger().handlers[-1]
    assert isinstance(handler, Sampling)
    assert [line for _, _, line in handler._windows] == ["another"]
    assert len(lines()) == 101


def test_a_message_that_is_no_text_is_written(lines: Lines, sample: Sample) -> None:
    sample(sample_keep=1)
    for _ in range(3):
        logging.getLogger("any").info({"no": "text"})
    assert messages(lines) == ["{'no': 'text'}"] * 3


def test_threads_lose_nothing(lines: Lines, sample: Sample) -> None:
    sample(sample_keep=10)

    def log() -> None:
        for _ in range(500):
            logging.getLogger("any").info("again")

    threads = [threading.Thread(target=log) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logging.getLogger().handlers[-1].close()
    assert messages(lines) == [*["again"] * 10, "again … repeated 1990 times"]
