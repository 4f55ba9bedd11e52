"""What is in the database and in the stream at the end, compared with what was written down."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg
import nats
from nats.js.api import AckPolicy, ConsumerConfig

from shared.config import NatsSettings
from shared.events import Envelope
from shared.messaging import Bus, DeadLetters
from shared.testing import Entry, History, Outcome, Verdict, check
from soak.events import CONTRACTS, STREAM

if TYPE_CHECKING:
    from soak.deployment import Deployment

SUBSCRIBER = "consumer"
_FETCH = 1000
_START_SECONDS = 60
_POLL_SECONDS = 0.25


async def flowing(deployment: Deployment) -> None:
    """Wait until the first effects are there: every part works before it is harmed.

    Raises:
        TimeoutError: none came for a minute.
    """
    async with asyncio.timeout(_START_SECONDS):
        while True:
            with suppress(asyncpg.UndefinedTableError):
                if await deployment.fetch("SELECT FROM consumer.effects LIMIT 1"):
                    return
            await asyncio.sleep(_POLL_SECONDS)


async def settled(deployment: Deployment, quiet_seconds: float) -> bool:
    """Wait until the outbox is empty and every message is acknowledged; whether it came to that.

    However many there are: it gives up once none has come through for `quiet_seconds`.
    """
    fewest: float = float("inf")
    deadline = time.monotonic() + quiet_seconds
    while time.monotonic() < deadline:
        with suppress(nats.errors.Error, OSError, TimeoutError, asyncpg.PostgresError):
            left = await waiting(deployment)
            if not left:
                return True
            if left < fewest:
                fewest, deadline = left, time.monotonic() + quiet_seconds
        await asyncio.sleep(_POLL_SECONDS)
    return False


async def waiting(deployment: Deployment) -> int:
    """Count the events on their way: in the outbox, in the stream, in flight."""
    (row,) = await deployment.fetch(
        "SELECT count(*) AS size FROM producer.outbox WHERE published_at IS NULL"
    )
    client = await nats.connect(deployment.nats.url, allow_reconnect=False)
    try:
        consumers = await client.jetstream().consumers_info(STREAM)
    finally:
        await client.close()
    if len(consumers) < len(CONTRACTS):
        return 1
    return int(row["size"]) + sum(
        (consumer.num_pending or 0) + (consumer.num_ack_pending or 0) for consumer in consumers
    )


async def replay_dead_letters(deployment: Deployment) -> int:
    """Give every dead letter another chance; return how many there were."""
    async with Bus(NatsSettings(servers=(deployment.nats.url,)), name="soak") as bus:
        dead_letters = DeadLetters(bus)
        dead = await dead_letters.list(limit=10_000)
        for each in dead:
            await dead_letters.replay(each.sequence)
    return len(dead)


async def judge(deployment: Deployment) -> tuple[Verdict, Verdict]:
    """Return what is found of the effects, and of the stream."""
    written = list(History.read(sorted(deployment.folder.glob("history-*.jsonl"))))
    effects = History(deployment.folder / "effects.jsonl", by=SUBSCRIBER)
    applied = [
        Entry(
            "effect",
            Outcome.OK,
            row["event"],
            row["key"],
            row["number"],
            SUBSCRIBER,
            note=f"effect {row['id']} by {row['applied_by']}",
        )
        for row in await deployment.fetch("SELECT * FROM consumer.effects ORDER BY id")
    ]
    stored = await _stored(deployment)
    effects.add_all([*applied, *stored])
    effects.close()
    return (
        check([*written, *applied], subscribers=[SUBSCRIBER]),
        check([*written, *stored], subscribers=[STREAM]),
    )


async def _stored(deployment: Deployment) -> list[Entry]:
    """What is in the stream, in its order. Replayed dead letters are not of the producers."""
    found: list[Entry] = []
    client = await nats.connect(deployment.nats.url, allow_reconnect=False)
    try:
        jetstream = client.jetstream()
        last = (await jetstream.stream_info(STREAM)).state.last_seq
        puller = await jetstream.pull_subscribe(
            "evt.credit.>", stream=STREAM, config=ConsumerConfig(ack_policy=AckPolicy.NONE)
        )
        sequence = 0
        while sequence < last:
            for message in await puller.fetch(_FETCH, timeout=5):
                sequence = message.metadata.sequence.stream
                if "Glam-Replay-For" in (message.headers or {}):
                    continue
                envelope = Envelope.decode(message.data)
                found.append(
                    Entry(
                        "effect",
                        Outcome.OK,
                        envelope.event_id,
                        envelope.payload["key"],
                        envelope.payload["number"],
                        STREAM,
                        note=f"sequence {sequence}",
                    )
                )
    finally:
        await client.close()
    return found
