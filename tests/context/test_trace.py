"""The rules of W3C Trace Context, one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.context import TraceContext

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN_ID = "00f067aa0ba902b7"
VALID = f"00-{TRACE_ID}-{SPAN_ID}-01"


def hex_ids(digits: int) -> st.SearchStrategy[str]:
    return st.integers(1, 16**digits - 1).map(lambda number: f"{number:0{digits}x}")


trace_contexts = st.builds(
    TraceContext, trace_id=hex_ids(32), span_id=hex_ids(16), flags=st.integers(0, 3)
)


def test_the_header_of_the_specification_is_read() -> None:
    assert TraceContext.parse(VALID) == TraceContext(TRACE_ID, SPAN_ID, flags=1)


@given(trace_contexts)
def test_what_is_written_is_read_back_the_same(trace: TraceContext) -> None:
    assert TraceContext.parse(trace.traceparent) == trace


@given(st.text() | st.text("0123456789abcdefABCDEF-", min_size=50, max_size=60))
def test_whatever_is_accepted_can_be_sent_on(header: str) -> None:
    trace = TraceContext.parse(header)
    assert trace is None or TraceContext.parse(trace.traceparent) == trace


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(None, id="no header"),
        pytest.param("", id="empty"),
        pytest.param(f"ff-{TRACE_ID}-{SPAN_ID}-01", id="version ff is forbidden"),
        pytest.param(f"ff-{TRACE_ID}-{SPAN_ID}-01-more", id="version ff, longer"),
        pytest.param(f"{VALID}-", id="version 00 ends after the flags"),
        pytest.param(f"{VALID}-more", id="version 00 has no further fields"),
        pytest.param(f"00-{TRACE_ID}-{SPAN_ID}", id="no flags"),
        pytest.param(f"00-{TRACE_ID}-{SPAN_ID}-1", id="one digit of flags"),
        pytest.param(f"00-{TRACE_ID}-{SPAN_ID}-0x", id="flags are no number"),
        pytest.param(f"00-{TRACE_ID.upper()}-{SPAN_ID}-01", id="upper case in the trace id"),
        pytest.param(f"00-{TRACE_ID}-{SPAN_ID.upper()}-01", id="upper case in the parent id"),
        pytest.param(f"00-{'0' * 32}-{SPAN_ID}-01", id="trace id of zeros"),
        pytest.param(f"00-{TRACE_ID}-{'0' * 16}-01", id="parent id of zeros"),
        pytest.param(f"00-{TRACE_ID[:-1]}-{SPAN_ID}0-01", id="a dash out of place"),
        pytest.param(f"0-{TRACE_ID}-{SPAN_ID}-01", id="one digit of version"),
        pytest.param(f"cc-{TRACE_ID}-{SPAN_ID}-01more", id="future version, no dash after flags"),
        pytest.param(f"cc-{TRACE_ID}-{SPAN_ID}-0", id="future version, too short"),
        pytest.param(f"{VALID},{VALID}", id="two headers joined"),
        pytest.param(f"{VALID}\n", id="a line break"),
        pytest.param(VALID.replace("4", "٤"), id="digits of another script"),
    ],
)
def test_what_breaks_a_rule_starts_a_new_trace(header: str | None) -> None:
    assert TraceContext.parse(header) is None


@pytest.mark.parametrize("rest", ["", "-", "-what-the-future-holds", "-\x01"])
def test_a_future_version_is_read_and_answered_in_version_00(rest: str) -> None:
    trace = TraceContext.parse(f"cc-{TRACE_ID}-{SPAN_ID}-01{rest}")
    assert trace is not None
    assert trace.traceparent == VALID


def test_blanks_around_a_header_do_not_matter() -> None:
    assert TraceContext.parse(f" {VALID}\t") == TraceContext.parse(VALID)


def test_flags_nobody_defined_are_passed_on_as_zero() -> None:
    trace = TraceContext.parse(f"00-{TRACE_ID}-{SPAN_ID}-ff")
    assert trace is not None
    assert trace.flags == 3
    assert trace.traceparent.endswith("-03")
    assert TraceContext(TRACE_ID, SPAN_ID, flags=0xFC).traceparent.endswith("-00")


def test_a_child_is_another_span_of_the_same_trace() -> None:
    parent = TraceContext(TRACE_ID, SPAN_ID, flags=0, tracestate="rojo=1")
    child = parent.child()
    assert child.span_id != parent.span_id
    assert (child.trace_id, child.flags, child.tracestate) == (TRACE_ID, 0, "rojo=1")
    assert not child.sampled


def test_a_new_trace_is_sampled_and_says_that_its_id_is_random() -> None:
    trace = TraceContext.start()
    assert trace.sampled
    assert trace.traceparent.endswith("-03")
    assert trace.trace_id != TraceContext.start().trace_id


@pytest.mark.parametrize(
    ("trace_id", "span_id", "flags"),
    [
        ("0" * 32, SPAN_ID, 1),
        (TRACE_ID, "0" * 16, 1),
        (TRACE_ID.upper(), SPAN_ID, 1),
        ("4bf92f35-77b3-4da6-a3ce-929d0e0e4736", SPAN_ID, 1),
        (TRACE_ID, SPAN_ID + "\n", 1),
        (TRACE_ID, SPAN_ID, 256),
        (TRACE_ID, SPAN_ID, -1),
    ],
)
def test_ids_the_header_cannot_carry_are_refused(trace_id: str, span_id: str, flags: int) -> None:
    with pytest.raises(ValueError, match=r"not a (trace|span) id|not a byte"):
        TraceContext(trace_id, span_id, flags)
