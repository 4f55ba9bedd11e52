"""Dead letters found, grouped, edited, replayed and discarded in bulk, and written down."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel

from shared.errors import ConflictError, NotFoundError, ValidationError
from shared.events import Contract, Envelope
from shared.messaging import (
    Action,
    Bus,
    DeadLetterEdit,
    DeadLetterFilter,
    DeadLetterOutcome,
    DeadLetters,
    Delivery,
    OutgoingMessage,
)
from shared.messaging.dead_letters import store as module
from shared.messaging.publishing.claim_check import CLAIM, ClaimCheck, resolve
from shared.testing import eventually
from tests.messaging.conftest import STREAM, SUBJECT, Subscribers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.messaging.publisher import PubAck


class Order(BaseModel):
    amount: int
    lines: list[str] = []


ORDER = Contract(SUBJECT, Order)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def delivery(number: int = 1, *, body: bytes = b"{}", subject: str = SUBJECT) -> Delivery:
    return Delivery(
        subject=subject,
        body=body,
        headers={"X-Own": "kept", "traceparent": TRACE, "X-Correlation-ID": "c1"},
        stream="TESTS",
        sequence=number,
        attempt=5,
        published_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


def order(amount: object) -> bytes:
    document = {
        "event_id": "e1",
        "subject": SUBJECT,
        "timestamp": "2026-01-02T00:00:00+00:00",
        "payload": {"amount": amount, "lines": ["a"]},
    }
    return Envelope.from_dict(document).encode()


async def put(
    letters: DeadLetters, number: int = 1, *, body: bytes = b"{}", error: Exception | None = None
) -> PubAck:
    return await letters.store(
        delivery(number, body=body),
        durable=f"handler{number % 2}",
        service="tests",
        version="1.2.3",
        reason=f"reason {number}",
        error=error,
    )


def raised(error: Exception) -> Exception:
    try:
        raise error
    except type(error) as caught:
        return caught


async def told(outcomes: AsyncIterator[DeadLetterOutcome]) -> list[DeadLetterOutcome]:
    return [outcome async for outcome in outcomes]


async def test_a_letter_tells_version_trace_and_correlation(bus: Bus) -> None:
    letters = DeadLetters(bus)
    letter = await letters.get((await put(letters)).sequence)
    assert (letter.version, letter.correlation_id) == ("1.2.3", "c1")
    assert letter.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    (head,) = (await letters.page()).letters
    assert head.size_bytes == letter.size_bytes == 2
    assert head.headers == letter.headers == delivery().headers


async def test_pages_and_filters_leave_nothing_out(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 3)
    letters = DeadLetters(bus)
    for number in range(10):
        await put(letters, number, error=raised(ValueError("v") if number < 4 else KeyError("k")))
    first = await letters.page(limit=4)
    assert [x.stream_sequence for x in first.letters] == [0, 1, 2, 3]
    assert first.next_after is not None
    rest = await letters.page(limit=6, after=first.next_after)
    assert [x.stream_sequence for x in rest.letters] == [4, 5, 6, 7, 8, 9]
    assert rest.next_after is None

    async def found(**criteria: object) -> list[int]:
        where = DeadLetterFilter(**criteria)  # type: ignore[arg-type]
        return [letter.stream_sequence async for letter in letters.scan(where)]

    everything = list(range(10))
    assert await found(durable="handler1") == [1, 3, 5, 7, 9]
    assert await found(stream="OTHER") == []
    assert await found(error="valueerror") == [0, 1, 2, 3]
    assert await found(reason="REASON 7") == [7]
    assert await found(subject="evt.*.happened") == everything
    assert await found(subject="evt.order.>") == []
    now = datetime.now(UTC)
    assert await found(since=now - timedelta(hours=1), until=now) == everything
    assert await found(since=now) == []
    assert await found(service="other") == []
    fifth = (await letters.list(after=4, limit=1))[0]
    assert await found(fingerprint=fifth.fingerprint) == [4, 5, 6, 7, 8, 9]
    with pytest.raises(ValidationError, match="without dots"):
        DeadLetterFilter(durable="a.b")
    whole = await letters.list(where=DeadLetterFilter(durable="handler1"), limit=2)
    assert [letter.body for letter in whole] == [b"{}", b"{}"]


async def test_groups_are_counted_without_their_bodies(
    bus: Bus,
) -> None:
    letters = DeadLetters(bus)
    for number in range(9):
        kind = ValueError if number < 6 else KeyError
        await put(letters, number * 2, body=b"x" * 500_000, error=raised(kind(str(number))))
    await put(letters, 20)
    received = bus.client.stats["in_bytes"]
    groups = await letters.groups()
    assert bus.client.stats["in_bytes"] - received < 100_000
    assert [(g.error_type, g.count) for g in groups] == [
        ("builtins.ValueError", 6),
        ("builtins.KeyError", 3),
        (None, 1),
    ]
    assert (groups[0].example, groups[0].error_message, groups[0].versions) == (6, "5", ("1.2.3",))
    assert groups[0].first_at <= groups[0].last_at
    assert await letters.depths() == {("TESTS", "handler0"): 10}


async def test_a_replay_of_many_takes_those_that_fit_and_none_twice(
    bus: Bus, subscribers: Subscribers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 1)
    letters = DeadLetters(bus)
    for number in range(6):
        await put(letters, number)
    where = DeadLetterFilter(durable="handler1")
    dry = await told(letters.replay_all(where, dry_run=True))
    assert [outcome.letter.sequence for outcome in dry] == [2, 4, 6]
    assert len(await letters.list()) == 6
    assert (await bus.js.stream_info("TESTS")).state.messages == 0

    async def fails(_: Delivery) -> None:
        raise ValidationError("no")

    # What is replayed fails again at once, and is a new letter: not for this replay.
    subscribers.start(bus, fails, durable="handler1")
    done = await told(
        letters.replay_all(where, rate_per_second=20, limit=6, actor="ada", reason="mended")
    )
    assert [outcome.error for outcome in done] == [None] * 3

    async def died_again() -> bool:
        return (await letters.depths()).get(("TESTS", "handler1")) == 3

    await eventually(died_again)
    records = (await letters.audit()).records
    assert [(r.action, r.actor, r.reason, r.letter.sequence) for r in records] == [
        (Action.REPLAYED, "ada", "mended", sequence) for sequence in (2, 4, 6)
    ]
    assert [(r.result_stream, r.result_sequence) for r in records] == [
        ("TESTS", n) for n in (1, 2, 3)
    ]


async def test_a_replay_of_many_ends_between_two_and_tells_what_failed(bus: Bus) -> None:
    letters = DeadLetters(bus)
    for number in range(4):
        await put(letters, number)
    stop = asyncio.Event()
    done = []
    async for outcome in letters.replay_all([1, 99, 2, 3], rate_per_second=1000, stop=stop):
        done.append(outcome)
        if outcome.letter.sequence == 2 or len(done) == 3:
            stop.set()
    assert [type(outcome.error) for outcome in done] == [type(None), NotFoundError, type(None)]
    assert [letter.sequence for letter in await letters.list()] == [3, 4]
    limited = await told(letters.replay_all(DeadLetterFilter(), limit=1))
    assert [outcome.letter.sequence for outcome in limited] == [3]


@pytest.mark.parametrize("before", ["audit", "remove"])
async def test_a_replay_killed_half_way_is_neither_lost_nor_published_twice(
    bus: Bus, before: str
) -> None:
    letters = DeadLetters(bus)
    await put(letters)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parents[1] / "dying_replay.py"),
        bus.settings.servers[0],
        before,
    )
    assert await process.wait() == -9
    assert (await bus.js.stream_info("TESTS")).state.messages == 1
    assert len(await letters.list()) == 1
    if before == "remove":
        # The stream knows nothing of the first, as long after it; the audit does.
        await bus.js.delete_stream("TESTS")
        await bus.ensure_stream(STREAM)
    ack = await letters.replay(1)
    assert (ack.sequence, ack.duplicate) == (1, True)
    left = (await bus.js.stream_info("TESTS")).state.messages
    assert left == (0 if before == "remove" else 1)
    assert await letters.list() == []
    assert len((await letters.audit()).records) == 1


async def test_an_edit_is_the_same_event_and_fits_its_contract(bus: Bus) -> None:
    letters = DeadLetters(bus, contracts=[ORDER])
    poison = order("many")
    sequence = (await put(letters, body=poison)).sequence

    async def refused(match: str, **edit: object) -> None:
        with pytest.raises(ValidationError, match=match):
            await letters.replay(sequence, edit=DeadLetterEdit(**edit))  # type: ignore[arg-type]
        assert len(await letters.list()) == 1
        assert (await bus.js.stream_info("TESTS")).state.messages == 0

    await refused("payload.amount", values={"payload.amount": "few"})
    await refused("keeps its event_id", values={"payload.amount": 1, "event_id": "e2"})
    await refused("keeps its subject", values={"payload.amount": 1, "subject": "evt.tests.x"})
    await refused("is not in the body", values={"payload.nothing.amount": 1})
    await refused("not valid JSON", body=b"not JSON")
    values = {"payload.amount": 3, "payload.lines.0": "b"}
    ack = await letters.replay(sequence, edit=DeadLetterEdit(values=values), actor="ada")
    stored = await bus.js.get_msg("TESTS", ack.sequence)
    envelope = Envelope.decode(stored.data or b"")
    assert envelope.payload == {"amount": 3, "lines": ["b"]}
    assert envelope.event_id == "e1"
    (record,) = (await letters.audit(letter=sequence)).records
    assert [(c.path, c.before, c.after) for c in record.changes] == [
        ("payload.amount", "many", 3),
        ("payload.lines.0", "a", "b"),
    ]
    assert (await letters.audited(record.sequence)).body == poison


async def test_a_letter_replayed_already_is_not_replayed_with_another_body(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = DeadLetters(bus, contracts=[ORDER])
    sequence = (await put(letters, body=order(1))).sequence

    async def crash(_: int) -> None:
        raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr(letters, "_remove", crash)
        with pytest.raises(KeyError):
            await letters.replay(sequence)
    with pytest.raises(ConflictError, match="another body"):
        await letters.replay(sequence, edit=DeadLetterEdit(values={"payload.amount": 2}))
    assert (await letters.replay(sequence)).duplicate


async def test_what_was_discarded_is_kept_and_can_be_restored(bus: Bus) -> None:
    letters = DeadLetters(bus)
    error = raised(ValueError("v"))
    for number in range(3):
        await put(letters, number, body=b"\x00\xff%d" % number, error=error)
    before = await letters.get(2)
    with pytest.raises(ValidationError, match="reason"):
        await letters.discard(2, " ")
    dry = await told(letters.discard_all([2], "gone", dry_run=True))
    assert dry[0].error is None
    assert len(await letters.list()) == 3
    await told(letters.discard_all(DeadLetterFilter(), "shop is gone", actor="ada"))
    assert await letters.list() == []
    page = await letters.audit(limit=2)
    assert [(r.action, r.reason, r.actor) for r in page.records] == [
        (Action.DISCARDED, "shop is gone", "ada")
    ] * 2
    assert page.next_after == 2
    assert (await letters.audit(after=2)).next_after is None
    restored = await letters.get(await letters.restore(2, actor="bob"))
    assert replace(restored, sequence=2) == before


async def test_a_claimed_body_is_left_anew_by_a_replay(bus: Bus) -> None:
    letters = DeadLetters(bus)
    body = b"x" * 3_000
    claim = await ClaimCheck(bus, above_bytes=10).leave(OutgoingMessage(SUBJECT, body, {}, "m"))
    dead = delivery().replace(body=claim.body, headers=dict(claim.headers))
    await letters.store(dead, durable="tests", service="s", reason="r")
    assert (await letters.resolved(await letters.get(1))).body == body
    ack = await letters.replay(1)
    stored = await bus.js.get_msg("TESTS", ack.sequence)
    again = dead.replace(body=stored.data or b"", headers=dict(stored.headers or {}))
    assert again.headers[CLAIM] == "1"
    assert again.body != dead.body  # the first object may go with its age
    assert (await resolve(bus, again)).body == body
