from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.context import TraceContext

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def read(tracestate: str | list[str] | None) -> str:
    trace = TraceContext.parse(TRACEPARENT, tracestate)
    assert trace is not None, "a tracestate never spoils the traceparent"
    return trace.tracestate


def members(count: int, length: int = 5) -> list[str]:
    return [f"k{number:02d}=".ljust(length, "v") for number in range(count)]


@pytest.mark.parametrize(
    ("header", "passed_on"),
    [
        (None, ""),
        ("", ""),
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        ("foo=1 \t , \t bar=2, \t baz=3", "foo=1,bar=2,baz=3"),
        ("foo=1,,  ,bar=2,", "foo=1,bar=2"),
        ("foo= inner  blanks ", "foo= inner  blanks"),
        ("fw529a3039@dt=FfAC,0a-_*/=~!", "fw529a3039@dt=FfAC,0a-_*/=~!"),
        (["foo=1", "", "bar=2,baz=3"], "foo=1,bar=2,baz=3"),
        ("z" * 256 + "=1", "z" * 256 + "=1"),
        ("t" * 241 + "@" + "v" * 14 + "=1", "t" * 241 + "@" + "v" * 14 + "=1"),
        ("k=" + "v" * 256, "k=" + "v" * 256),
        (",".join(members(32)), ",".join(members(32))),
    ],
)
def test_a_good_list_is_passed_on_in_its_order(
    header: str | list[str] | None, passed_on: str
) -> None:
    assert read(header) == passed_on


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("foo", id="no value"),
        pytest.param("foo=", id="empty value"),
        pytest.param("=1", id="empty key"),
        pytest.param("foo =1", id="blank in the key"),
        pytest.param("FOO=1", id="upper case key"),
        pytest.param("_foo=1", id="key starts with a sign"),
        pytest.param("@foo=1", id="no tenant"),
        pytest.param("foo@=1", id="no system"),
        pytest.param("foo@1=1", id="system starts with a digit"),
        pytest.param("foo@@bar=1", id="two at signs"),
        pytest.param("foo@bar@baz=1", id="two systems"),
        pytest.param("t" * 242 + "@v=1", id="long tenant"),
        pytest.param("t@" + "v" * 15 + "=1", id="long system"),
        pytest.param("foo=1=2", id="two equal signs"),
        pytest.param("foo=ünlaut", id="not ASCII"),
        pytest.param("foo=a\r\nX-Evil: 1", id="header injection"),
        pytest.param("foo=1\n", id="a line break at the end"),
        pytest.param("foo=\tx", id="a tab in the value"),
        pytest.param("z" * 257 + "=1", id="long key"),
        pytest.param("k=" + "v" * 257, id="long value"),
        pytest.param("foo=1,bar=2,foo=3", id="the same key twice"),
        pytest.param(["foo=1", "foo=1"], id="the same key in two headers"),
        pytest.param(",".join(members(33)), id="33 members"),
    ],
)
def test_a_list_that_breaks_the_grammar_is_dropped_whole(header: str | list[str]) -> None:
    assert read(header) == ""


def test_of_a_long_list_the_large_members_go_first_then_the_last() -> None:
    large = "large=" + "v" * 130
    small = members(20, length=30)
    kept = read([*small[:2], large, *small[2:]]).split(",")
    assert kept == small[:16]
    assert len(",".join(kept)) <= 512 < len(",".join(small[:17]))


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z0-9][a-z0-9_*/-]{0,40}(@[a-z][a-z0-9_*/-]{0,13})?", fullmatch=True),
            st.from_regex(r"[ -+\--<>-~]{0,40}[!-+\--<>-~]", fullmatch=True),
        ),
        max_size=32,
        unique_by=lambda member: member[0],
    )
)
def test_every_list_of_the_grammar_survives_and_stays_as_it_is(
    pairs: list[tuple[str, str]],
) -> None:
    header = ",".join(f"{key}={value}" for key, value in pairs)
    kept = read(header)
    assert read(kept) == kept
    assert header.startswith(kept)
    assert len(header) > 512 or kept == header


def test_without_a_traceparent_no_tracestate_is_read() -> None:
    assert TraceContext.parse("nonsense", "foo=1") is None
