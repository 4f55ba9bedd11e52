from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.context import (
    new_event_id,
    new_request_id,
    new_span_id,
    new_trace_id,
    safe_id,
)


@pytest.mark.parametrize("value", ["req_1", "A-b.c:d_9", "x" * 128])
def test_a_safe_id_is_kept(value: str) -> None:
    assert safe_id(value) == value


@pytest.mark.parametrize(
    "value", [None, "", "x" * 129, "a b", "a\r\nX-Evil: 1", "a\n", "ä", "a/b", '"', "٣", "\x00"]
)
def test_an_unsafe_id_is_refused(value: str | None) -> None:
    assert safe_id(value) is None


def test_the_length_can_be_chosen() -> None:
    assert safe_id("abcd", max_length=4) == "abcd"
    assert safe_id("abcde", max_length=4) is None


@given(st.text())
def test_what_is_accepted_needs_no_escaping_anywhere(value: str) -> None:
    assert safe_id(value) in {None, value}
    assert safe_id(value) is None or re.fullmatch(r"[!-~]{1,128}", value)


def test_generated_ids_have_their_form_and_are_safe() -> None:
    assert re.fullmatch(r"req_[0-9a-f]{12}", new_request_id())
    assert re.fullmatch(r"[0-9a-f]{32}", new_trace_id())
    assert re.fullmatch(r"[0-9a-f]{16}", new_span_id())
    for make in (new_request_id, new_trace_id, new_span_id, new_event_id):
        made = [make() for _ in range(1000)]
        assert len(set(made)) == len(made)
        assert all(safe_id(value) == value for value in made)


def test_an_id_of_zeros_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.context.identifiers._ahead", [])
    monkeypatch.setattr("os.urandom", lambda size: bytes(size - 9) + b"\1" + bytes(8))
    assert new_span_id() == "0000000000000001"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_draws_ids_of_its_own() -> None:
    new_span_id()
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, "".join(new_span_id() for _ in range(100)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reader, 1600).decode()
    os.close(reader)
    os.close(writer)
    assert len(told) == 1600
    childs = {told[at : at + 16] for at in range(0, 1600, 16)}
    assert childs.isdisjoint(new_span_id() for _ in range(1000))


def test_threads_never_share_an_id() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: [new_span_id() for _ in range(2000)], range(8)))
    assert len({span_id for ids in made for span_id in ids}) == 16_000


def test_an_event_id_is_a_uuid_of_version_7_that_tells_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_645_557_742_000_500_000)  # RFC 9562, A.6
    event_id = UUID(new_event_id())
    assert event_id.version == 7
    assert event_id.variant == "specified in RFC 4122"
    assert event_id.int >> 80 == 0x017F22E279B0


def test_event_ids_sort_by_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1_700_000_000_000_000_000, 1_700_000_000_003_000_000, 1_000))
    monkeypatch.setattr("time.time_ns", lambda: next(now))
    made = [new_event_id() for _ in range(3000)]
    assert made == sorted(made)
