from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

import pytest

from shared.logging.rotated_file import RotatedFile

if TYPE_CHECKING:
    from pathlib import Path


def record(text: str, level: int = logging.INFO) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": text, "levelno": level})


def test_a_disk_that_stalls_stops_nobody_and_loses_nothing(tmp_path: Path) -> None:
    """A named pipe that nobody opens to read stalls whoever opens it to write, as a dead NFS."""
    file = tmp_path / "stalled.log"
    os.mkfifo(file)
    handler = RotatedFile(file, max_bytes=1_000_000, kept=5)
    sent = [f"line {number}" for number in range(100)]
    for line in sent:
        handler.handle(record(line))
    read = threading.Thread(target=lambda: got.append(file.read_text()))
    got: list[str] = []
    # A pipe has no position, which is one more thing that must not fail the caller.
    read.start()
    handler.close()
    read.join()
    assert got[0].splitlines() == sent


def test_of_a_flood_errors_are_kept_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.logging.waiting_lines.KEPT_LINES", 10)
    file = tmp_path / "stalled.log"
    os.mkfifo(file)
    handler = RotatedFile(file, max_bytes=1_000_000, kept=5)
    for number in range(50):
        handler.handle(record(f"line {number}"))
    handler.handle(record("it broke", logging.ERROR))
    got: list[str] = []
    read = threading.Thread(target=lambda: got.append(file.read_text()))
    read.start()
    handler.close()
    read.join()
    *lines, error, notice = got[0].splitlines()
    assert error == "it broke"
    assert notice == f"{50 - len(lines)} log lines were dropped: the disk did not keep up"


def test_full_files_are_numbered_and_the_oldest_go(tmp_path: Path) -> None:
    file = tmp_path / "some.log"
    handler = RotatedFile(file, max_bytes=20, kept=2)
    for number in range(5):
        handler.handle(record(f"line number {number}"))
    handler.close()
    names = ["some.log", "some.log.1", "some.log.2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [(tmp_path / name).read_text()[-2] for name in names] == ["4", "3", "2"]


def test_a_file_that_was_there_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "some.log"
    file.write_text("before\n")
    handler = RotatedFile(file, max_bytes=1000, kept=2)
    handler.handle(record("after"))
    handler.close()
    assert file.read_text() == "before\nafter\n"


def test_a_disk_that_refuses_fails_no_caller_and_is_told_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = RotatedFile(tmp_path / "missing" / "some.log", max_bytes=1000, kept=2)
    for _ in range(3):
        handler.handle(record("lost"))
        handler.flush()
    handler.close()
    assert capfd.readouterr().err.count("cannot write the log file") == 1


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_writes_only_what_is_its_own(tmp_path: Path) -> None:
    file = tmp_path / "some.log"
    os.mkfifo(file)
    handler = RotatedFile(file, max_bytes=1000, kept=2)
    handler.handle(record("the parent's"))  # waits: nobody reads
    own = tmp_path / "own.log"
    child = os.fork()
    if child == 0:
        handler._file = own
        handler.handle(record("the child's"))
        handler.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert own.read_text() == "the child's\n"
    got: list[str] = []
    read = threading.Thread(target=lambda: got.append(file.read_text()))
    read.start()
    handler.close()
    read.join()
    assert got == ["the parent's\n"]
