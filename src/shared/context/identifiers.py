"""The ids that tie one request's log lines, headers and events together."""

from __future__ import annotations

import re
import secrets
import sys

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    import time
    from uuid import UUID

    def uuid7() -> UUID:
        """Make a UUID of version 7 (RFC 9562, section 5.7).

        The twelve bits after the milliseconds hold the fraction of the millisecond (section 6.2,
        method 3), so that ids made one after the other sort in that order.
        """
        milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
        value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
        value |= 0x7 << 76
        value |= (nanoseconds * 0x1000 // 1_000_000) << 64
        value |= 0b10 << 62
        value |= secrets.randbits(62)
        return UUID(int=value)


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
    return f"req_{secrets.token_hex(6)}"


def new_trace_id() -> str:
    """Make a trace id: 32 random lower-case hexadecimal digits, never all zero."""
    return _random_hex(16)


def new_span_id() -> str:
    """Make a span id: 16 random lower-case hexadecimal digits, never all zero."""
    return _random_hex(8)


def new_event_id() -> str:
    """Make an event id: a UUID of version 7 as a string, so that ids sort by time."""
    return str(uuid7())


def _random_hex(size: int) -> str:
    while not any(value := secrets.token_bytes(size)):
        pass
    return value.hex()
