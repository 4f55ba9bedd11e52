"""The ``traceparent`` header, as W3C Trace Context prescribes (levels 1 and 2).

https://www.w3.org/TR/trace-context-1/ and https://www.w3.org/TR/trace-context-2/; sections up to
3.2.4 bear the same numbers in both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

from shared.context.identifiers import new_span_id, new_trace_id
from shared.context.tracestate import normalise_tracestate

if TYPE_CHECKING:
    from collections.abc import Iterable

_SAMPLED = 0x01  # Section 3.2.2.5.1.
_RANDOM = 0x02  # Level 2, section 3.2.2.5.2: the trace id is random; stays with the trace id.
_KNOWN_FLAGS = _SAMPLED | _RANDOM

# Sections 3.2.2.3 and 3.2.2.4: lower-case hexadecimal digits, not all of them zero.
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")

# Section 3.2.2.1: version ff is forbidden. Section 3.2.2.2: version 00 ends behind the flags.
# Section 3.2.4: a later version may go on, behind another dash.
_TRACEPARENT = re.compile(
    rf"(?!ff)(?P<version>[0-9a-f]{{2}})"
    rf"-(?P<trace_id>{_TRACE_ID.pattern})"
    rf"-(?P<span_id>{_SPAN_ID.pattern})"
    rf"-(?P<flags>[0-9a-f]{{2}})"
    rf"(?P<rest>-.*)?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span's place in a trace.

    Args:
        trace_id: 32 lower-case hexadecimal digits, the same for all spans of a trace.
        span_id: 16 lower-case hexadecimal digits (``parent-id`` in the header's own words).
        flags: bit 0 says sampled, bit 1 says that the trace id is random (level 2).
        tracestate: the members that other tracing systems sent along, passed on in their order.

    Raises:
        ValueError: an id that the header could not carry.
    """

    trace_id: str
    span_id: str
    flags: int = _SAMPLED
    tracestate: str = ""

    def __post_init__(self) -> None:
        if not _TRACE_ID.fullmatch(self.trace_id):
            raise ValueError(f"{self.trace_id!r} is not a trace id: 32 hex digits, not all 0")
        if not _SPAN_ID.fullmatch(self.span_id):
            raise ValueError(f"{self.span_id!r} is not a span id: 16 hex digits, not all 0")
        if not 0 <= self.flags <= 0xFF:  # noqa: PLR2004 - one byte
            raise ValueError(f"{self.flags!r} is not a byte of trace flags: 0 to 255")

    @classmethod
    def start(cls) -> Self:
        """Begin a new trace, sampled, with ids from a cryptographic random source."""
        return _checked(cls, new_trace_id(), new_span_id(), _SAMPLED | _RANDOM, "")

    @classmethod
    def parse(
        cls, traceparent: str | None, tracestate: str | Iterable[str] | None = None
    ) -> Self | None:
        """Read the caller's headers; ``None`` means that a new trace has to be started.

        Args:
            traceparent: the header's value. Should there be several such headers, hand in their
                values joined with a comma: that is not a traceparent, and a new trace starts.
            tracestate: the header's value, or the values of all such headers in their order. One
                that breaks the grammar is dropped, and the trace goes on (section 3.3).
        """
        match = _TRACEPARENT.fullmatch((traceparent or "").strip(" \t"))
        if match is None or (match["version"] == "00" and match["rest"]):
            return None
        # Section 3.2.2.5, other flags: bits that nobody has defined yet are passed on as zero.
        flags = int(match["flags"], 16) & _KNOWN_FLAGS
        state = normalise_tracestate(tracestate) if tracestate else ""
        return _checked(cls, match["trace_id"], match["span_id"], flags, state)

    def child(self) -> Self:
        """Return a new span of the same trace, with this one as its parent."""
        return _checked(type(self), self.trace_id, new_span_id(), self.flags, self.tracestate)

    @property
    def traceparent(self) -> str:
        """The header's value in version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags & _KNOWN_FLAGS:02x}"

    @property
    def sampled(self) -> bool:
        """Whether the caller may have recorded its part of the trace."""
        return bool(self.flags & _SAMPLED)


def _checked(kind: type[_T], trace_id: str, span_id: str, flags: int, tracestate: str) -> _T:
    """Make one of parts that need no checks: we made them, or the grammar has let them through."""
    trace = _new(kind)
    _set(trace, "trace_id", trace_id)
    _set(trace, "span_id", span_id)
    _set(trace, "flags", flags)
    _set(trace, "tracestate", tracestate)
    return trace


_T = TypeVar("_T", bound=TraceContext)
_new, _set = object.__new__, object.__setattr__
