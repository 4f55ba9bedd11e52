"""How long anybody still waits for the current work, carried by a context variable.

A caller tells the service it calls in the header `X-Request-Timeout-Ms`: the time that is left, in
whole milliseconds. It is a duration, not a point in time: the clocks of two machines differ. gRPC's
`grpc-timeout` and Envoy's `x-envoy-expected-rq-timeout-ms` are made the same way.
"""

from __future__ import annotations

import math
import re
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_HEADER = "X-Request-Timeout-Ms"

_MILLISECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


class Deadline:
    """The point in time, on the monotonic clock, at which the one who waits gives up.

    >>> with within(30.0) as deadline, within(60.0):
    ...     remaining_seconds() <= 30.0
    ...     deadline.lift()
    ...     deadline.remaining_seconds
    True
    """

    __slots__ = ("_at",)

    def __init__(self, at: float) -> None:
        self._at = at

    @property
    def remaining_seconds(self) -> float | None:
        """The time left, 0 when it is up, ``None`` without a limit."""
        return None if self._at == math.inf else max(0.0, self._at - time.monotonic())

    def lift(self) -> None:
        """Let the rest of the work take its time: the one who waited has an answer."""
        self._at = math.inf


_current: ContextVar[Deadline | None] = ContextVar("shared.context.deadline", default=None)


def remaining_seconds() -> float | None:
    """Return how long anybody still waits: 0 when the time is up, ``None`` without a limit."""
    deadline = _current.get()
    return None if deadline is None else deadline.remaining_seconds


@contextmanager
def within(seconds: float | None) -> Iterator[Deadline]:
    """Set a deadline for the block, and for the tasks it starts; it interrupts nothing by itself.

    An outer deadline that comes earlier counts; ``None`` adds no limit of its own.
    """
    outer = _current.get()
    at = math.inf if outer is None else outer._at  # noqa: SLF001 - one of its own kind
    if seconds is not None:
        at = min(at, time.monotonic() + seconds)
    token = _current.set(deadline := Deadline(at))
    try:
        yield deadline
    finally:
        _current.reset(token)


def parse_timeout(value: str | None) -> float | None:
    """Read the header, in seconds; ``None`` if it is absent or no whole number of milliseconds."""
    text = (value or "").strip(" \t")
    return int(text) / 1000 if _MILLISECONDS.fullmatch(text) else None


def format_timeout(seconds: float) -> str:
    """Write the header; what is left of a millisecond is cut off, and no more than 9 digits."""
    return str(min(int(seconds * 1000), 999_999_999))
