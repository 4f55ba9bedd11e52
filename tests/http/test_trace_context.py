"""Trace Context through a service that calls out: from the caller's headers to the next call's.

Each case of the W3C's harness (https://github.com/w3c/trace-context, folder ``test``) is here, sent
as bytes over a socket, since blanks around a value and repeated headers have to arrive as they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from tests.http.wire import answered, client_for

if TYPE_CHECKING:
    from tests.http.conftest import Misbehave, Serve

TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"
GOOD = f"00-{TRACE}-{SPAN}-01"
TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")

Headers = Sequence[tuple[str, str]]
Calls = list[tuple[str, str, str, list[str]]]
"""Trace id, span id, flags and tracestate members of each call the service made."""
Ask = Callable[..., Awaitable[Calls]]


@pytest.fixture
async def ask(serve: Serve, misbehave: Misbehave) -> AsyncIterator[Ask]:
    """Send headers to a service; hear with what headers it called out."""

    async def agree(_: int) -> bytes:
        return answered(200, '{"data": null}')

    app = FastAPI()

    @app.post("/{calls}")
    async def call_out(calls: int) -> None:
        async with client_for(called.url) as client:
            for _ in range(calls):
                await client.post("/callback", body=[])

    async with misbehave(agree) as called, serve(app) as url:

        async def ask(*headers: tuple[str, str], calls: int = 1) -> Calls:
            before = len(called.requests)
            status = await _post(url, f"/{calls}", headers)
            assert status == 200
            return [_read(head) for head in called.requests[before:]]

        yield ask


async def _post(url: str, path: str, headers: Headers) -> int:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    lines = [f"POST {path} HTTP/1.1", "Host: service", "Connection: close", "Content-Length: 0"]
    lines += [f"{name}:{value}" for name, value in headers]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ", 2)[1])


def _read(head: str) -> tuple[str, str, str, list[str]]:
    fields = [line.split(": ", 1) for line in head.split("\r\n")[1:] if line]
    (traceparent,) = [value for name, value in fields if name.lower() == "traceparent"]
    tracestate = [value for name, value in fields if name.lower() == "tracestate"]
    assert len(tracestate) <= 1
    parts = TRACEPARENT.fullmatch(traceparent)
    assert parts, traceparent
    members = tracestate[0].split(",") if tracestate else []
    return parts[1], parts[2], parts[3], members


# -- traceparent ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "TrAcEpArEnT", "TRACEPARENT"])
async def test_a_trace_goes_on_with_a_span_of_its_own(ask: Ask, name: str) -> None:
    ((trace, span, flags, members),) = await ask((name, GOOD))
    assert (trace, flags, members) == (TRACE, "01", [])
    assert span != SPAN


@pytest.mark.parametrize(
    "value",
    [f" {GOOD}", f"\t{GOOD}", f"{GOOD} ", f"{GOOD}\t", f"\t {GOOD} \t"],
)
async def test_blanks_around_it_mean_nothing(ask: Ask, value: str) -> None:
    ((trace, *_),) = await ask(("traceparent", value))
    assert trace == TRACE


@pytest.mark.parametrize("rest", ["", "-what-the-future-will-be-like", "-"])
async def test_a_later_version_is_read_as_far_as_it_is_known(ask: Ask, rest: str) -> None:
    ((trace, *_),) = await ask(("traceparent", f"cc{GOOD[2:]}{rest}"))
    assert trace == TRACE


@pytest.mark.parametrize(
    ("sent", "passed_on"),
    [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("fd", "01"), ("fc", "00")],
)
async def test_flags_that_nobody_defined_are_not_passed_on(
    ask: Ask, sent: str, passed_on: str
) -> None:
    ((_, _, flags, _),) = await ask(("traceparent", f"00-{TRACE}-{SPAN}-{sent}"))
    assert flags == passed_on


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="none"),
        pytest.param([("traceparent", GOOD), ("traceparent", GOOD)], id="the same twice"),
        pytest.param(
            [("traceparent", GOOD), ("traceparent", GOOD.replace("9012-", "9011-"))], id="two"
        ),
        pytest.param([("trace-parent", GOOD)], id="another name"),
        pytest.param([("trace.parent", GOOD)], id="yet another name"),
    ],
)
async def test_a_new_trace_starts_without_one_traceparent(
    ask: Ask, headers: list[tuple[str, str]]
) -> None:
    ((trace, _, flags, _),) = await ask(*headers)
    assert trace[:30] != TRACE[:30]
    assert flags == "03"  # level 2: an id of our own is random


@pytest.mark.parametrize(
    "value",
    [
        f"{GOOD}.",
        f"{GOOD}-what-the-future-will-be-like",
        f"cc{GOOD[2:]}.what-the-future-will-be-like",
        f"ff{GOOD[2:]}",
        f".0{GOOD[2:]}",
        f"0.{GOOD[2:]}",
        f"000{GOOD[2:]}",
        f"0000{GOOD[2:]}",
        f"0{GOOD[2:]}",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-.{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00-{TRACE}3-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-.{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN[:-1]}.-01",
        f"00-{TRACE}-{SPAN}7-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{TRACE}-{SPAN}-.0",
        f"00-{TRACE}-{SPAN}-0.",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{'ABCDEF00' * 4}-{SPAN}-01",
    ],
)
async def test_a_new_trace_starts_for_a_traceparent_that_is_none(ask: Ask, value: str) -> None:
    ((trace, _, _, members),) = await ask(("traceparent", value), ("tracestate", "foo=1"))
    assert trace not in {TRACE, f"{TRACE}3"[1:], "0" * 32, "abcdef00" * 4}
    assert members == []  # section 3.3: a tracestate belongs to its traceparent


# -- tracestate ----------------------------------------------------------------------------------

MEMBERS = [f"bar{number:02}={number:02}" for number in range(1, 34)]
KEY = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) not in ",=")


@pytest.mark.parametrize(
    ("values", "passed_on"),
    [
        pytest.param(["foo=1,bar=2"], ["foo=1", "bar=2"], id="one header"),
        pytest.param(
            ["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
            ["foo=1", "bar=2", "rojo=1", "congo=2", "baz=3"],
            id="several headers",
        ),
        pytest.param([""], [], id="empty"),
        pytest.param(["foo=1", ""], ["foo=1"], id="empty behind"),
        pytest.param(["", "foo=1"], ["foo=1"], id="empty before"),
        pytest.param([f"{KEY}={VALUE}"], [f"{KEY}={VALUE}"], id="all characters"),
        pytest.param(
            [f"{KEY}@a-z0-9_-*/={VALUE}"], [f"{KEY}@a-z0-9_-*/={VALUE}"], id="all, of a tenant"
        ),
        pytest.param(["foo=1 \t , \t bar=2, \t baz=3"], ["foo=1", "bar=2", "baz=3"], id="blanks"),
        pytest.param(["foo=1\t \t,\t \tbar=2"], ["foo=1", "bar=2"], id="tabs"),
        *(
            pytest.param([value], ["foo=1"], id=repr(value))
            for value in (" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t")
        ),
        pytest.param(
            [",".join(MEMBERS[start : start + 10]) for start in (0, 10, 20)]
            + [",".join(MEMBERS[30:32])],
            MEMBERS[:32],
            id="32 members",
        ),
        pytest.param(["foo=1", "z" * 256 + "=1"], ["foo=1", "z" * 256 + "=1"], id="long key"),
        pytest.param(
            ["foo=1", "t" * 241 + "@" + "v" * 14 + "=1"],
            ["foo=1", "t" * 241 + "@" + "v" * 14 + "=1"],
            id="long key of a tenant",
        ),
        *(
            pytest.param(values, [], id=f"broken: {name}")
            for name, values in {
                "a key twice": ["foo=1,foo=1"],
                "a key with two values": ["foo=1,foo=2"],
                "a key in two headers": ["foo=1", "foo=1"],
                "a key in two headers with two values": ["foo=1", "foo=2"],
                "blank in the key": ["foo =1"],
                "upper case": ["FOO=1"],
                "dot": ["foo.bar=1"],
                "no system": ["foo@=1,bar=2"],
                "no tenant": ["@foo=1,bar=2"],
                "two at signs": ["foo@@bar=1,bar=2"],
                "two systems": ["foo@bar@baz=1,bar=2"],
                "33 members": [",".join(MEMBERS[:20]), ",".join(MEMBERS[20:])],
                "key of 257": ["foo=1", "z" * 257 + "=1"],
                "tenant of 242": ["foo=1", "t" * 242 + "@v=1"],
                "system of 15": ["foo=1", "t@" + "v" * 15 + "=1"],
                "two equal signs": ["foo=bar=baz"],
                "no value": ["foo=,bar=3"],
            }.items()
        ),
    ],
)
async def test_tracestate_goes_on_or_is_dropped_whole(
    ask: Ask, values: list[str], passed_on: list[str]
) -> None:
    states = [("tracestate", value) for value in values]
    ((trace, _, _, members),) = await ask(("traceparent", f"00-{TRACE}-{SPAN}-00"), *states)
    assert trace == TRACE, "a tracestate never spoils the traceparent"
    assert members == passed_on


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("TraceState", True),
        ("TrAcEsTaTe", True),
        ("TRACESTATE", True),
        ("trace-state", False),
        ("trace.state", False),
    ],
)
async def test_tracestate_goes_by_its_name_in_any_case(ask: Ask, name: str, read: bool) -> None:
    ((_, _, _, members),) = await ask(("traceparent", GOOD), (name, "foo=1"))
    assert members == (["foo=1"] if read else [])


async def test_a_tracestate_without_traceparent_is_dropped(ask: Ask) -> None:
    ((_, _, _, members),) = await ask(("tracestate", "foo=1,bar=2"))
    assert members == []


# -- several calls -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ([("traceparent", GOOD)], True),
        ([], False),
        ([("traceparent", f"00-{'0' * 32}-{SPAN}-01")], False),
    ],
)
async def test_each_call_is_a_span_of_one_trace(
    ask: Ask, headers: list[tuple[str, str]], kept: bool
) -> None:
    calls = await ask(*headers, calls=3)
    (trace,) = {trace for trace, *_ in calls}
    assert (trace == TRACE) is kept
    assert len({span for _, span, *_ in calls}) == 3
