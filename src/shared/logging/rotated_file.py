"""A log file that is written by a thread, since a disk may stall for seconds."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

from shared.logging.waiting_lines import WaitingLines, encoded, notice_of

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

_FLUSH_SECONDS = 5.0


class RotatedFile(logging.Handler):
    """Appends lines to a file, and begins a new one when it is full.

    A line waits in memory until the thread has written it, which is at once as long as the disk
    keeps up; beyond ten thousand waiting lines new ones are dropped and counted, errors a thousand
    later. `flush` and `close` wait up to five seconds for what is waiting; the interpreter closes
    every handler when it ends. A process that is killed loses what was waiting.

    Full files get a number behind their name, the youngest ``.1``.

    Args:
        file: the file, in a folder that exists. It is opened with the first line.
        max_bytes: a line that would make it longer goes to a new one.
        kept: how many full ones are kept.
    """

    def __init__(self, file: Path, *, max_bytes: int, kept: int) -> None:
        super().__init__()
        self._file = file
        self._max_bytes = max_bytes
        self._kept = kept
        self._open: FileIO | None = None
        self._size = 0
        self._failed = False
        self._waiting = WaitingLines(
            "log-file",
            self._write,
            lambda dropped: notice_of(self.formatter, dropped, "the disk did not keep up"),
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Let the record's line wait for the thread."""
        try:
            data = encoded(self.formatter, record)
            with self._waiting.guard:
                self._waiting.put(data, level=record.levelno or 0)
        except Exception:  # noqa: BLE001 - a log line never fails its caller
            self.handleError(record)

    def flush(self) -> None:
        """Wait until every line is in the file, five seconds at most."""
        self._waiting.flush(_FLUSH_SECONDS)

    def close(self) -> None:
        """Flush, and close the file, unless a write to a disk that stalls is still in flight."""
        if self._waiting.flush(_FLUSH_SECONDS) and self._open is not None:
            self._open.close()
            self._open = None
        super().close()

    def _write(self, data: bytes) -> None:
        try:
            for line in data.splitlines(keepends=True):
                self._append(line)
            self._failed = False
        except OSError as error:
            if not self._failed and sys.stderr is not None:
                print(f"cannot write the log file {self._file}: {error}", file=sys.stderr)  # noqa: T201 - the log is what fails
            self._failed = True
            raise

    def _append(self, line: bytes) -> None:
        if self._open is None:
            # Unbuffered: a forked child has no copy of half a batch to write once more.
            self._open = self._file.open("ab", buffering=0)
            self._size = os.fstat(self._open.fileno()).st_size
        if self._size and self._size + len(line) > self._max_bytes:
            self._open.close()
            self._open = None
            self._rotate()
            self._append(line)
            return
        self._size += len(line)
        while line:
            line = line[self._open.write(line) :]

    def _rotate(self) -> None:
        for number in range(self._kept, 0, -1):
            younger = self._numbered(number - 1)
            if younger.exists():
                os.replace(younger, self._numbered(number))  # noqa: PTH105 - says what it does

    def _numbered(self, number: int) -> Path:
        return self._file.with_name(f"{self._file.name}.{number}") if number else self._file
