"""Standard output that never makes the service wait."""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from io import UnsupportedOperation
from typing import IO

from shared.logging.waiting_lines import WaitingLines, encoded, notice_of

_PIPE_BUF = 4096  # POSIX: a pipe that is ready takes this much at once
_FLUSH_SECONDS = 2.0


class StandardOutput(logging.Handler):
    """Writes lines to what `sys.stdout` is at the time, at once as long as its reader keeps up.

    When the reader of a pipe stalls, lines wait in memory and a thread writes them as the reader
    goes on. Beyond ten thousand waiting lines new ones are dropped, errors a thousand later; how
    many is logged when there is room again. `flush` and `close` wait up to two seconds for what is
    waiting.
    """

    def __init__(self) -> None:
        super().__init__()
        self._waiting = WaitingLines(
            "log-output",
            self._write_all,
            lambda dropped: notice_of(self.formatter, dropped, "nobody read standard output"),
        )
        self._descriptor = -1
        self._poll = select.poll()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line, or let it wait."""
        try:
            data = encoded(self.formatter, record)
            stream = sys.stdout
            if stream is None:
                return
            descriptor = _descriptor_of(stream)
            if descriptor is None:
                stream.write(data.decode())
                stream.flush()
                return
            waiting = self._waiting
            with waiting.guard:
                if waiting.idle:
                    if descriptor != self._descriptor:
                        self._watch(descriptor)
                    stream.flush()  # what was printed before comes before
                    data = self._write_ready(data)
                if data:
                    waiting.put(data, level=record.levelno or 0)
        except Exception:  # noqa: BLE001 - a log line never fails its caller
            self.handleError(record)

    def flush(self) -> None:
        """Wait until no line is waiting, two seconds at most."""
        self._waiting.flush(_FLUSH_SECONDS)

    def close(self) -> None:
        """Flush, and take no more lines."""
        self.flush()
        super().close()

    def _watch(self, descriptor: int) -> None:
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._descriptor = descriptor

    def _write_ready(self, data: bytes) -> bytes:
        """Write as much as can be written without waiting, and give back the rest."""
        while data and self._poll.poll(0):
            try:
                data = data[os.write(self._descriptor, data[:_PIPE_BUF]) :]
            except BlockingIOError:
                break
        return data

    def _write_all(self, data: bytes) -> None:
        while data:
            self._poll.poll()
            try:
                data = data[os.write(self._descriptor, data[:_PIPE_BUF]) :]
            except BlockingIOError:
                time.sleep(0.01)  # ready, but for less than this


def _descriptor_of(stream: IO[str]) -> int | None:
    try:
        return stream.fileno()
    except (AttributeError, OSError, UnsupportedOperation, ValueError):
        return None
