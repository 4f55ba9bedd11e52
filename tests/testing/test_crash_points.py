"""The kit finds flows that are wrong, and ours is right wherever it is killed."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from nats.js.api import AckPolicy, ConsumerConfig

from shared.database import Database, migrate
from shared.events import Envelope
from shared.messaging import Bus
from shared.platform.streams import STREAMS
from shared.testing import CrashPoints, FlowError
from shared.testing.faults import database_down, killed
from tests.testing import order_flow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from shared.config import DatabaseSettings, NatsSettings
    from shared.dev import NatsServer, PostgresServer

FLOW = "tests.testing.order_flow"
# Where things happen between commit, publish, mark and acknowledgement: each of these has moments
# before and after.
WINDOWS = (
    "shared.delivery.unit_of_work.",  # commit
    "shared.delivery.relay.relay.",  # publish, mark
    "shared.delivery.inbox.",
    "shared.service.runner.",
    "shared.messaging.subscriber.",
    "shared.messaging.consuming.handling.",
)
# Where the broker and the database are killed.
WITHIN = (
    "shared.delivery",
    "shared.messaging.subscriber",
    "shared.messaging.consuming",
    "shared.service.runner",
)
# Every so-manieth of these moments; `GLAM_EVERY_CRASH=1` takes all of the whole flow.
EVERY = int(os.environ.get("GLAM_EVERY_CRASH", "0"))


def chosen(several: int) -> dict[str, Any]:
    if EVERY:
        return {"every": EVERY}
    return {"every": several, "matching": "|".join(map(re.escape, WINDOWS))}


async def each_finds_a_point(points: CrashPoints, within: Iterable[str]) -> None:
    """A module that was renamed would go unwatched, and nobody would notice."""
    where = [str(point) for point in await points.found()]
    for module in within:
        assert any(f" {module}" in each for each in where), module


async def words(ledger: Path, scenario: str) -> Counter[str]:
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return Counter(line.split()[1] for line in lines if line.split()[0] == scenario)


@pytest.mark.parametrize(("flow", "wrong"), [("forgetful", 0), ("repeating", 2)])
async def test_it_finds_the_window_in_which_a_flow_loses_or_doubles(
    flow: str, wrong: int, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    found: Counter[int] = Counter()
    async with CrashPoints(f"{FLOW}:{flow}", str(ledger), within=[FLOW], repeats=9) as points:
        async for crash in points.each():
            assert crash.happened
            found[(await words(ledger, crash.scenario))["effect"]] += 1
    assert found[wrong] > 0
    assert set(found) == {1, wrong}


async def test_a_flow_that_fails_or_hangs_is_told_with_its_reason() -> None:
    async with CrashPoints(f"{FLOW}:fail") as points:
        with pytest.raises(FlowError, match="cannot end well"):
            await points.found()
    async with CrashPoints(f"{FLOW}:hang", limit_seconds=1) as points:
        with pytest.raises(FlowError, match="within 1 s"):
            await points.found()
    with pytest.raises(FlowError, match="No module named"):
        async with CrashPoints("there.is_none:run"):
            pass


# -- our own flow ------------------------------------------------------------------------------


async def prepare(settings: DatabaseSettings) -> asyncpg.Connection[asyncpg.Record]:
    connection = await asyncpg.connect(
        host=settings.host, port=settings.port, user=settings.user, database=settings.name
    )
    await connection.execute(order_flow.TABLES)
    return connection


async def effects(connection: asyncpg.Connection[asyncpg.Record], scenario: str) -> int:
    return int(
        await connection.fetchval(
            "SELECT count(*) FROM proof.effects WHERE scenario = $1", scenario
        )
    )


async def test_killed_at_any_await_the_effect_happens_once(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    connection = await prepare(database_settings)
    settings = (database_settings.model_dump_json(), nats_settings.model_dump_json())
    died = 0
    async with CrashPoints(f"{FLOW}:run", *settings, within=("shared", FLOW)) as points:
        where = "\n".join(str(point) for point in await points.found())
        for window in WINDOWS:
            assert f"before {window}" in where
            assert f"after {window}" in where
        async for crash in points.each(**chosen(9)):
            died += crash.happened
            assert await effects(connection, crash.scenario) == 1, crash
    assert died > 1
    await connection.close()


async def test_a_relay_killed_at_any_await_publishes_once_and_in_order(
    database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    settings = (database_settings.model_dump_json(), nats_settings.model_dump_json())
    within = ["shared.delivery.relay"]
    async with (
        Bus(nats_settings, name="proof") as bus,
        Database(database_settings, schema="proof") as database,
    ):
        await bus.ensure_stream(STREAMS["CREDIT"])
        await migrate(database, migrations="shared.delivery.migrations")
        died = 0
        async with CrashPoints(f"{FLOW}:relay", *settings, within=within) as points:
            await each_finds_a_point(points, within)
            async for crash in points.each(every=EVERY or 40):
                died += crash.happened
                sent = [f"{crash.scenario} {number}" for number in range(3)]
                stored = await everything_in(bus, "evt.credit.taken")
                assert [it for it in stored if it.startswith(crash.scenario)] == sent, crash
        assert died > 1


async def everything_in(bus: Bus, subject: str) -> list[str]:
    """The scenarios of all messages of a subject, in their order."""
    reader = await bus.js.pull_subscribe(
        subject, stream="CREDIT", config=ConsumerConfig(ack_policy=AckPolicy.NONE)
    )
    left = (await reader.consumer_info()).num_pending or 0
    found: list[str] = []
    while len(found) < left:
        messages = await reader.fetch(left, timeout=5)
        found += [Envelope.decode(message.data).payload["scenario"] for message in messages]
    await reader.unsubscribe()
    return found


async def test_the_broker_killed_at_any_await_loses_nothing(
    database_settings: DatabaseSettings, own_nats_server: NatsServer
) -> None:
    from shared.config import NatsSettings

    connection = await prepare(database_settings)
    nats = NatsSettings(servers=(own_nats_server.url,))
    settings = (database_settings.model_dump_json(), nats.model_dump_json())
    async with CrashPoints(f"{FLOW}:run", *settings, within=WITHIN) as points:
        await each_finds_a_point(points, WITHIN)
        async for crash in points.each(victim=killed(own_nats_server), **chosen(25)):
            assert await effects(connection, crash.scenario) == 1, crash
    await connection.close()


async def test_the_database_killed_at_any_await_loses_nothing(
    own_postgres_server: PostgresServer, nats_settings: NatsSettings
) -> None:
    connection = await prepare(own_postgres_server.settings)
    await connection.close()
    settings = (own_postgres_server.settings.model_dump_json(), nats_settings.model_dump_json())
    async with CrashPoints(f"{FLOW}:run", *settings, within=WITHIN) as points:
        await each_finds_a_point(points, WITHIN)
        async for crash in points.each(victim=database_down(own_postgres_server), **chosen(25)):
            connection = await asyncpg.connect(own_postgres_server.url)
            assert await effects(connection, crash.scenario) == 1, crash
            await connection.close()
