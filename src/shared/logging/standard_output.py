"""Standard output that never makes the service wait."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections import deque
from io import UnsupportedOperation
from typing import IO

_KEPT_LINES = 10_000
_PIPE_BUF = 4096  # POSIX: a pipe that is ready takes this much at once
_FLUSH_SECONDS = 2.0


class StandardOutput(logging.Handler):
    """Writes lines to what `sys.stdout` is at the time, at once as long as its reader keeps up.

    When the reader of a pipe stalls, lines wait in memory and a thread writes them as the reader
    goes on. Beyond ten thousand waiting lines new ones are dropped; how many is logged when there
    is room again. `flush` and `close` wait up to two seconds for what is waiting.
    """

    def __init__(self) -> None:
        super().__init__()
        # Not the handler's own lock: `logging.shutdown` holds that one while it flushes.
        self._guard = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._dropped = 0
        self._writer: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line, or let it wait."""
        try:
            line = self.format(record) + "\n"
            stream = sys.stdout
            if stream is None:
                return
            descriptor = _descriptor(stream)
            if descriptor is None:
                stream.write(line)
                stream.flush()
                return
            data = line.encode("utf-8", "backslashreplace")
            with self._guard:
                if self._writer is None:
                    stream.flush()
                    data = _write_ready(descriptor, data)
                if data:
                    self._wait(descriptor, data)
        except Exception:  # noqa: BLE001 - a log line never fails its caller
            self.handleError(record)

    def flush(self) -> None:
        """Wait until no line is waiting, two seconds at most."""
        with self._guard:
            self._guard.wait_for(lambda: self._writer is None, _FLUSH_SECONDS)

    def close(self) -> None:
        """Flush, and take no more lines."""
        self.flush()
        super().close()

    def _wait(self, descriptor: int, data: bytes) -> None:
        if len(self._waiting) >= _KEPT_LINES:
            self._dropped += 1
            return
        self._waiting.append(data)
        if self._writer is None:
            self._writer = threading.Thread(
                target=self._write_waiting, args=(descriptor,), name="log-output", daemon=True
            )
            self._writer.start()

    def _write_waiting(self, descriptor: int) -> None:
        while data := self._next():
            try:
                _write_all(descriptor, data)
            except OSError:  # nobody reads any more
                with self._guard:
                    self._waiting.clear()

    def _next(self) -> bytes | None:
        """Take the line that waits longest; without one the writer ends."""
        with self._guard:
            if not self._waiting and self._dropped:
                dropped, self._dropped = self._dropped, 0
                return self._notice(dropped)
            if not self._waiting:
                self._writer = None
                self._guard.notify_all()
                return None
            return self._waiting.popleft()

    def _notice(self, dropped: int) -> bytes:
        record = logging.LogRecord(
            __name__,
            logging.WARNING,
            __file__,
            0,
            "%d log lines were dropped: nobody read standard output",
            (dropped,),
            None,
        )
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")


def _descriptor(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, UnsupportedOperation, ValueError):
        return None


def _write_ready(descriptor: int, data: bytes) -> bytes:
    """Write as much as can be written without waiting, and give back the rest."""
    while data and select.select([], [descriptor], [], 0)[1]:
        try:
            data = data[os.write(descriptor, data[:_PIPE_BUF]) :]
        except BlockingIOError:
            break
    return data


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        select.select([], [descriptor], [])
        try:
            data = data[os.write(descriptor, data[:_PIPE_BUF]) :]
        except BlockingIOError:
            time.sleep(0.01)  # ready, but for less than this
