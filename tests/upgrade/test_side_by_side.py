"""Replicas of the version before the package was laid out anew, and of this one, run together."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from shared.config import DeliverySettings, LoggingSettings, ServiceSettings
from shared.dev import ServiceProcess
from shared.testing import eventually
from tests.upgrade.replica import KEYS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.config import DatabaseSettings, NatsSettings

ROOT = Path(__file__).parents[2]
BEFORE = "cea1843"

TRANSACTIONS = 150  # of each replica
TABLES = """\
CREATE TABLE replicas (name text PRIMARY KEY, added int NOT NULL DEFAULT 0, source text);
CREATE TABLE counters (key text PRIMARY KEY, number int NOT NULL DEFAULT 0);
CREATE TABLE effects (
  id bigint GENERATED ALWAYS AS IDENTITY, handler text, event text, key text, number int,
  published_by text, applied_by text);
"""


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    """Where each version's source is."""
    archive = tmp_path / "before.tar"
    done = subprocess.run(
        ["git", "-C", ROOT, "archive", "--output", archive, BEFORE, "src"],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        pytest.skip(f"the history of this clone does not reach back to {BEFORE}")
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path], check=True)
    return {"old": tmp_path / "src", "new": ROOT / "src"}


@pytest.fixture
async def database(database_settings: DatabaseSettings) -> AsyncIterator[asyncpg.Connection]:
    """What the replicas count and apply, seen past them."""
    connection = await asyncpg.connect(
        host=database_settings.host,
        port=database_settings.port,
        user=database_settings.user,
        database=database_settings.name,
    )
    await connection.execute(TABLES)
    await connection.executemany("INSERT INTO counters (key) VALUES ($1)", [(key,) for key in KEYS])
    yield connection
    await connection.close()


async def test_replicas_of_both_versions_share_streams_outbox_and_inbox(
    sources: dict[str, Path],
    database: asyncpg.Connection,
    database_settings: DatabaseSettings,
    nats_settings: NatsSettings,
    tmp_path: Path,
) -> None:
    settings = ServiceSettings(
        database=database_settings,
        nats=nats_settings,
        delivery=DeliverySettings(poll_seconds=0.1),
        logging=LoggingSettings(level="WARNING"),
        drain_seconds=5,
    )
    replicas: dict[str, ServiceProcess] = {}
    await database.executemany(
        "INSERT INTO replicas (name) VALUES ($1)", [(name,) for name in sources]
    )
    for name, source in sources.items():
        arguments = (name, str(TRANSACTIONS), settings.model_dump_json(exclude_defaults=True))
        replicas[name] = ServiceProcess(
            [sys.executable, "-m", "tests.upgrade.replica", *arguments],
            name=name,
            cwd=ROOT,
            env={"PYTHONPATH": str(source)},
            log_file=tmp_path / f"{name}.log",
        )

    async def applied(share: float) -> str:
        """Wait until so much of all has its ordered effect; who applied the last of it."""

        async def latest() -> str | None:
            for replica in replicas.values():
                assert replica.running, replica.log_file and replica.log_file.read_text()
            count = await database.fetchval(
                "SELECT count(*) FROM effects WHERE handler = 'ordered'"
            )
            query = "SELECT applied_by FROM effects WHERE handler = 'ordered' ORDER BY id DESC"
            return await database.fetchval(query) if count >= share * total else None

        return str(await eventually(latest, within_seconds=120))

    async def taken_over(dead: str) -> bool:
        query = "SELECT applied_by FROM effects WHERE handler = 'ordered' ORDER BY id DESC"
        return bool(await database.fetchval(query) != dead)

    total = TRANSACTIONS * len(replicas)
    async with AsyncExitStack() as stack:
        for replica in replicas.values():
            await stack.enter_async_context(replica)
        # Whoever applies in order dies twice, so that each version takes over from the other.
        for share in (0.2, 0.5):
            applying = await applied(share)
            await replicas[applying].kill()
            await eventually(partial(taken_over, applying))  # or it may be back sooner
            await replicas[applying].start()
        await applied(1)

        async def all_recorded() -> bool:
            query = "SELECT count(*) FROM effects WHERE handler = 'shared'"
            return bool(await database.fetchval(query) >= total)

        await eventually(all_recorded, within_seconds=120)

    started = await database.fetch("SELECT name, source FROM replicas")
    assert {row["name"]: Path(row["source"]) for row in started} == sources
    rows = await database.fetch("SELECT * FROM effects ORDER BY id")
    numbers = {
        row["key"]: list(range(1, row["number"] + 1))
        for row in await database.fetch("SELECT key, number FROM counters")
    }
    for handler, order in (("ordered", list), ("shared", sorted)):
        mine = [row for row in rows if row["handler"] == handler]
        seen = {key: [row["number"] for row in mine if row["key"] == key] for key in KEYS}
        assert {key: order(found) for key, found in seen.items()} == numbers
        ways = {(row["published_by"], row["applied_by"]) for row in mine}
        assert {("old", "new"), ("new", "old")} <= ways
