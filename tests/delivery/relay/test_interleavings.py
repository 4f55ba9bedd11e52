"""What comes at an unlucky moment, or from an unlucky row, and must not stop the rest."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from nats.js.api import StreamConfig
from sqlalchemy import text

from shared.config import DeliverySettings
from shared.delivery.relay.fences import Fences
from shared.delivery.relay.janitor import Janitor
from shared.delivery.relay.leases import LeasedOutbox
from shared.delivery.relay.listener import CommitListener
from shared.delivery.relay.sender import Sender
from shared.events import Contract
from shared.testing import eventually
from tests.delivery.world import (
    Counted,
    World,
    all_out,
    listening,
    running,
)

if TYPE_CHECKING:
    from shared.database import Database
    from shared.dev import PostgresServer

_MEGABYTE = 1024 * 1024


async def test_a_batch_of_which_all_is_held_back_costs_the_others_nothing(world: World) -> None:
    """The first is too large for the server, and the second of its key has a batch to itself."""
    await world.add(1, key="a", metadata={"pad": "x" * 3 * _MEGABYTE})
    await world.add(2)
    await world.add(3, key="a", metadata={"pad": "x" * 2 * _MEGABYTE})
    assert not await world.relay().drain()
    assert await world.numbers() == [2]
    failed, published, held = await world.rows()
    assert failed.attempts == 1
    assert "too large" in failed.last_error
    assert published.published_at is not None
    assert (held.attempts, held.published_at) == (0, None)


@pytest.mark.parametrize("headers", ['{"Odd": 7}', '{"Odd": null}', '{"two words": "x"}'])
async def test_a_row_that_no_message_can_be_made_of_fails_alone(world: World, headers: str) -> None:
    await world.add(1, 2, 3)
    async with world.database.transaction() as session:
        await session.execute(
            text("UPDATE outbox SET headers = CAST(:headers AS jsonb) WHERE id = 2"),
            {"headers": headers},
        )
    assert not await world.relay().drain()
    assert sorted(await world.numbers()) == [1, 3]
    _, failed, _ = await world.rows()
    assert failed.attempts == 1
    assert failed.last_error


async def test_a_subject_of_one_word_fails_alone(world: World) -> None:
    await world.add(1, 2, key="a")
    await world.add(3, key="b")
    async with world.database.transaction() as session:
        await session.execute(text("UPDATE outbox SET subject = 'orphan' WHERE id = 1"))
    assert not await world.relay().drain()
    assert await world.numbers() == [3]


async def test_a_listener_that_is_cancelled_from_within_listens_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.settings = DeliverySettings(poll_seconds=3600)
    cancel_once(monkeypatch, CommitListener, "_listen")
    async with running(world.relay()):
        await eventually(lambda: listening(world))
        await world.add(1)
        await eventually(lambda: all_out(world))


async def test_a_janitor_that_is_cancelled_from_within_cleans_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.delivery.relay.janitor._PAUSE_SECONDS", 0.01)
    cancelled = cancel_once(monkeypatch, Janitor, "sweep")
    async with running(world.relay()):
        await eventually(lambda: called(cancelled, 3))


@pytest.mark.parametrize("fault", [asyncio.CancelledError(), RuntimeError("a mistake")])
async def test_a_count_of_the_backlog_that_fails_does_not_end_the_relay(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    monkeypatch.setattr("shared.delivery.relay.relay._MEASURE_EVERY_SECONDS", 0.0)
    counted = cancel_once(monkeypatch, LeasedOutbox, "backlog", fault)
    relay = world.relay()
    async with running(relay):
        await eventually(lambda: called(counted, 1))
        await world.add(1)
        await eventually(lambda: all_out(world))
        assert relay.status.running


def cancel_once(
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    name: str,
    fault: BaseException | None = None,
) -> list[int]:
    """Let the method's first call end in a cancellation nobody asked for; count the calls."""
    original = getattr(kind, name)
    calls: list[int] = []

    async def once(self: object) -> Any:
        calls.append(len(calls))
        if len(calls) == 1:
            raise fault or asyncio.CancelledError
        return await original(self)

    monkeypatch.setattr(kind, name, once)
    return calls


async def called(calls: list[int], times: int) -> bool:
    return len(calls) >= times


async def test_leases_whose_begin_was_cancelled_are_not_taken_in_a_transaction_for_ever(
    database: Database, postgres_server: PostgresServer
) -> None:
    outbox = LeasedOutbox(database, lease_seconds=60)
    assert len(await outbox.renew(share=False)) == 16
    await outbox.leave()
    await postgres_server.pause()
    try:
        renewal = asyncio.create_task(outbox.renew(share=False))
        await asyncio.sleep(0.1)  # BEGIN is sent, and nobody answers
        renewal.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(renewal), 0.1)
    finally:
        await postgres_server.resume()
    await asyncio.wait([renewal])
    assert len(await outbox.renew(share=False)) == 16
    async with database.transaction() as session:
        query = text("SELECT count(*) FROM outbox_leases WHERE owner = :owner")
        assert await session.scalar(query, {"owner": outbox.owner}) == 16
    outbox.close()


ALPHA = Contract("evt.alpha.counted", Counted)
BETA = Contract("evt.beta.counted", Counted)


async def test_a_batch_of_several_domains_is_fenced_as_a_whole(world: World) -> None:
    """In a stream of its own making, which no table of domains knows."""
    await world.bus.js.add_stream(
        StreamConfig(
            name="GREEK",
            subjects=["evt.alpha.>", "evt.beta.>"],
            allow_atomic=True,
            allow_rollup_hdrs=True,
        )
    )
    async with world.unit_of_work() as uow:
        for n in range(4):
            uow.outbox.add((ALPHA, BETA)[n % 2], Counted(n=n))
    outbox = LeasedOutbox(world.database, lease_seconds=60)
    await outbox.renew(share=False)
    name = await outbox.name()
    rows = await outbox.due(10, 10)
    for row in rows:  # as if all were of one partition
        row.partition = 3
    late = Fences(world.bus, outbox=name, owner="late")
    features = await late.features(ALPHA.subject)
    assert features is not None
    await late.raise_for(features, [(3, rows[0].token)])
    next_one = Fences(world.bus, outbox=name, owner="next")
    await next_one.raise_for(features, [(3, max(row.token for row in rows) + 1)])
    for row in rows:
        row.token = rows[0].token
    receipt = await Sender(world.bus.publisher, fences=late).send(rows)
    assert receipt.published == []
    await outbox.leave()
    outbox.close()


async def test_a_subject_that_moved_to_another_stream_is_followed(world: World) -> None:
    for name, subject in (("OLD", "evt.alpha.>"), ("NEW", "evt.nobody.>")):
        await world.bus.js.add_stream(
            StreamConfig(name=name, subjects=[subject], allow_rollup_hdrs=True)
        )
    relay = world.relay()
    async with running(relay):
        await add(world, ALPHA, 1)
        await eventually(lambda: all_out(world))
        for name, subject in (("OLD", "evt.gone.>"), ("NEW", "evt.alpha.>")):
            stream = (await world.bus.js.stream_info(name)).config
            fences = [known for known in stream.subjects or [] if known.startswith("fence")]
            await world.bus.js.update_stream(replace(stream, subjects=[subject, *fences]))
        await add(world, ALPHA, 2)
        await eventually(lambda: all_out(world))
    assert (await world.bus.js.get_last_msg("NEW", ALPHA.subject)).seq


async def test_a_stream_without_roll_ups_is_published_to_unfenced(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.bus.js.add_stream(StreamConfig(name="PLAIN", subjects=["evt.alpha.>"]))
    await add(world, ALPHA, 1)
    assert await world.relay().drain()
    assert "PLAIN is not fenced: it was made without allow_rollup" in caplog.text


async def add(world: World, contract: Contract[Counted], number: int) -> None:
    async with world.unit_of_work() as uow:
        uow.outbox.add(contract, Counted(n=number), key="a")


@pytest.mark.parametrize("steps", range(5))
async def test_a_listener_ends_though_its_connection_is_lost_at_that_moment(
    database: Database, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    opened = []
    connect = database.connect

    async def remembered() -> object:
        opened.append(await connect())
        return opened[-1]

    monkeypatch.setattr(database, "connect", remembered)
    listening = asyncio.Event()
    listener = CommitListener(database, lambda *_: None, connected=listening.set)
    running = asyncio.create_task(listener.run())
    await listening.wait()
    opened[0].terminate()
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    done, _ = await asyncio.wait([running], timeout=10)
    assert done
