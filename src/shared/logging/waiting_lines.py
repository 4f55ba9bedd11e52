"""Lines that wait in memory for a thread to write them, so that nobody else waits."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakMethod

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT_LINES = 10_000
KEPT_ERRORS = 1_000
"""How many more may wait if they are errors: what went wrong is told even after a flood."""

_BATCH_LINES = 500


class WaitingLines:
    """A bounded queue of lines, and the thread that empties it; the thread ends with the lines.

    Beyond ten thousand waiting lines new ones are dropped, and errors beyond a thousand more; how
    many there were is said in a line of its own when there is room again. A line that was accepted
    is written before any that came after it.

    A child process forked meanwhile starts with none: they are the parent's to write.

    Args:
        name: the thread's name.
        write: writes bytes, taking its time. Lines it fails for with `OSError` are lost.
        notice: makes the line that says how many were dropped.
    """

    guard: threading.Lock
    _emptied: threading.Condition
    _lines: deque[bytes]
    _dropped: int
    _thread: threading.Thread | None

    def __init__(
        self, name: str, write: Callable[[bytes], None], notice: Callable[[int], bytes]
    ) -> None:
        self._name = name
        self._write = write
        self._notice = notice
        self._start_anew()
        if hasattr(os, "register_at_fork"):
            anew = WeakMethod(self._start_anew)
            os.register_at_fork(after_in_child=lambda: (call := anew()) and call())

    @property
    def idle(self) -> bool:
        """Whether no line waits, nor is being written; ask under `guard`."""
        return self._thread is None

    def put(self, line: bytes, *, level: int) -> None:
        """Let a line wait, or count it as dropped; call it under `guard`."""
        kept = KEPT_LINES + (KEPT_ERRORS if level >= logging.ERROR else 0)
        if len(self._lines) >= kept:
            self._dropped += 1
            return
        self._lines.append(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def flush(self, seconds: float) -> bool:
        """Wait until no line waits, so long at most; say whether that was enough."""
        with self.guard:
            return self._emptied.wait_for(lambda: self._thread is None, seconds)

    def _start_anew(self) -> None:
        """Wait for nothing, write nothing; also in a child that was forked with the guard held."""
        # Not a handler's own lock: `logging.shutdown` holds that one while it flushes.
        self.guard = threading.Lock()
        self._emptied = threading.Condition(self.guard)
        self._lines = deque()
        self._dropped = 0
        self._thread = None

    def _run(self) -> None:
        while batch := self._next():
            try:
                self._write(batch)
            except OSError:  # nobody reads any more, or the disk is full
                with self.guard:
                    self._lines.clear()

    def _next(self) -> bytes | None:
        """Take the lines that wait longest; without any the thread ends."""
        with self.guard:
            if self._lines:
                several = min(len(self._lines), _BATCH_LINES)
                return b"".join(self._lines.popleft() for _ in range(several))
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                return self._notice(dropped)
            self._thread = None
            self._emptied.notify_all()
            return None


def notice_of(formatter: logging.Formatter | None, dropped: int, why: str) -> bytes:
    """Make the line that says how many lines were dropped."""
    record = logging.LogRecord(
        __name__,
        logging.WARNING,
        __file__,
        0,
        "%d log lines were dropped: %s",
        (dropped, why),
        None,
    )
    return encoded(formatter, record)


def encoded(formatter: logging.Formatter | None, record: logging.LogRecord) -> bytes:
    """Write a record as a line of UTF-8, with its line break."""
    line = getattr(formatter, "line", None)
    if line is not None:
        written: bytes = line(record)
        return written
    text = (formatter or _PLAIN).format(record)
    return (text + "\n").encode("utf-8", "backslashreplace")


_PLAIN = logging.Formatter()
