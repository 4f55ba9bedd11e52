"""Of a line that is repeated over and over, the first ones and a count."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.logging.record import FIELDS

if TYPE_CHECKING:
    from collections.abc import Sequence

_SPANS = "shared.tracing"
_WINDOWS = 1024

_Line = tuple[str, int, str]
"""A logger's name, a level, and the message before its arguments are put in."""


@dataclass(slots=True)
class _Window:
    """One line in the time that began with its first record."""

    ends: float
    seen: int = 0
    summary: threading.Timer | None = None


class Sampling(logging.Handler):
    """Hands records on to other handlers, a flood of one line as its first records and a count.

    A line is a logger, a level and a message before its arguments are put in. Its first `keep`
    records within `seconds` are handed on; at the end of that time one record says how often it
    was repeated beyond them, in its words and in its field `repeated`. Closing says it at once, and
    closes the other handlers.

    Records at ERROR and above are always handed on: an error id that a caller was told is found in
    the log. So are those whose message is not text, and a line that is new while a thousand others
    are being counted.

    Args:
        targets: the handlers records go to.
        keep: how many records of a line are handed on in each window; 0 hands on all.
        seconds: the length of the window.
        spans: whether the spans of `shared.tracing` are sampled too, each name by itself. A trace
            then has holes.
    """

    def __init__(
        self, targets: Sequence[logging.Handler], *, keep: int, seconds: float, spans: bool = False
    ) -> None:
        super().__init__()
        self._targets = targets
        self._keep = keep
        self._seconds = seconds
        self._spans = spans
        self._windows: dict[_Line, _Window] = {}  # in the order of their ends

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand the record on, or count it, if the filters let it through.

        Only counting takes the lock, which the library takes for every record.
        """
        if self.filters and not self.filter(record):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the record on, or count it."""
        try:
            if self._is_kept(record):
                self._hand_on(record)
        except Exception:  # noqa: BLE001 - a log line never fails its caller
            self.handleError(record)

    def flush(self) -> None:
        """Flush the other handlers."""
        for target in self._targets:
            target.flush()

    def close(self) -> None:
        """Say what was repeated, and close the other handlers."""
        self.acquire()
        try:
            for line, window in list(self._windows.items()):
                self._end(line, window)
        finally:
            self.release()
        for target in self._targets:
            target.close()
        super().close()

    def _is_kept(self, record: logging.LogRecord) -> bool:
        if not self._keep or record.levelno >= logging.ERROR or not isinstance(record.msg, str):
            return True
        message = record.msg
        if record.name == _SPANS:
            if not self._spans:
                return True
            message = record.getMessage()
        self.acquire()
        try:
            return self._is_one_of_the_first((record.name, record.levelno, message))
        finally:
            self.release()

    def _is_one_of_the_first(self, line: _Line) -> bool:
        now = time.monotonic()
        window = self._windows.get(line)
        if window is not None and window.ends <= now:
            self._end(line, window)
            window = None
        if window is None:
            self._forget_ended(now)
            if len(self._windows) >= _WINDOWS:
                return True
            window = self._windows[line] = _Window(now + self._seconds)
        window.seen += 1
        if window.seen <= self._keep:
            return True
        if window.summary is None:
            window.summary = threading.Timer(window.ends - now, self._time_is_up, (line, window))
            window.summary.daemon = True
            window.summary.start()
        return False

    def _forget_ended(self, now: float) -> None:
        while self._windows:
            line, window = next(iter(self._windows.items()))
            if window.ends > now:
                break
            self._end(line, window)

    def _time_is_up(self, line: _Line, window: _Window) -> None:
        self.acquire()
        try:
            self._end(line, window)
        finally:
            self.release()

    def _end(self, line: _Line, window: _Window) -> None:
        """Close a line's window once, and say how often the line was repeated."""
        if self._windows.get(line) is not window:
            return
        del self._windows[line]
        if window.summary is None:
            return
        window.summary.cancel()
        name, level, message = line
        repeated = window.seen - self._keep
        record = logging.LogRecord(
            name, level, __file__, 0, "%s … repeated %d times", (message, repeated), None
        )
        setattr(record, FIELDS, {"repeated": repeated})
        # The count belongs to no request, whichever happens to be current.
        contextvars.Context().run(self._hand_on, record)

    def _hand_on(self, record: logging.LogRecord) -> None:
        for target in self._targets:
            target.emit(record)  # a target has no filters, and locks are its own affair
