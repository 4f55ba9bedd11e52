"""The ids that tie one request's log lines, headers and events together."""

from __future__ import annotations

import os
import re
import sys
import time

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid import UUID

    def uuid7() -> UUID:
        """Make a UUID of version 7."""
        return UUID(new_event_id())


_SAFE = re.compile(r"[A-Za-z0-9._:-]+", re.ASCII)


def safe_id(value: str | None, *, max_length: int = 128) -> str | None:
    """Return ``value`` if it may be echoed into headers and logs, else ``None``.

    Safe is what is not empty, at most ``max_length`` characters long and made of ASCII letters,
    digits and ``. _ : -`` alone: no line break, blank or quote can get into a header or a log line.
    """
    if value is None or len(value) > max_length or not _SAFE.fullmatch(value):
        return None
    return value


def new_request_id() -> str:
    """Make a request id: ``req_`` and 12 hexadecimal digits."""
    return f"req_{new_span_id()[:12]}"


def new_trace_id() -> str:
    """Make a trace id: 32 random lower-case hexadecimal digits, never all zero."""
    return new_span_id() + new_span_id()


def new_span_id() -> str:
    """Make a span id: 16 random lower-case hexadecimal digits, never all zero."""
    try:
        return _ahead.pop()  # at once, whichever thread asks
    except IndexError:
        return _draw_ahead()


def new_event_id() -> str:
    """Make an event id: a UUID of version 7 as a string, so that ids sort by time."""
    # RFC 9562, section 5.7. The twelve bits after the milliseconds hold the fraction of the
    # millisecond (section 6.2, method 3), so that ids made one after the other sort in that order.
    # It is written as text at once: an object of `uuid.UUID` in between costs as much again.
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    moment = f"{milliseconds:012x}"
    digits = new_span_id()
    return (
        f"{moment[:8]}-{moment[8:]}-7{nanoseconds * 0x1000 // 1_000_000:03x}"
        f"-{_VARIANT[digits[0]]}{digits[1:4]}-{digits[4:]}"
    )


_ahead: list[str] = []
"""Span ids drawn from the system's source of randomness, many at a time: a call costs more than
the bytes. They are as unpredictable as if drawn one by one; a forked child draws its own."""

_DRAWN = 256

_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))  # its two upper bits are 10


def _draw_ahead() -> str:
    if not _forks_watched:
        _forks_watched.append(True)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_ahead.clear)
    digits = os.urandom(8 * _DRAWN).hex()
    drawn = [digits[at : at + 16] for at in range(0, len(digits), 16)]
    last, *others = [span_id for span_id in drawn if span_id != _ZERO]
    _ahead.extend(others)
    return last


_ZERO = "0" * 16
_forks_watched: list[bool] = []
