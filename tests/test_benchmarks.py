"""The benchmarks run, and name every contender; what they measure is for people to read."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HTTP = [
    "shared: edge, envelope",
    "bare FastAPI",
    "Starlette",
    "correlation-id, instrumentator",
    "the same, OpenTelemetry",
    "three BaseHTTPMiddlewares",
]

CONTENDERS = {
    "envelope: create and encode": [
        "shared: Envelope.create, encode",
        "stdlib json",
        "bare pydantic",
    ],
    "envelope: encode": [
        "shared: encode what create made",
        "shared: encode what decode read",
        "stdlib json",
        "orjson",
        "msgspec, typed",
    ],
    "envelope: decode": [
        "shared: Envelope.decode",
        "stdlib json",
        "orjson",
        "msgspec, typed",
        "bare pydantic",
    ],
    "envelope: decode, and read the payload as its type": [
        "shared: Envelope.decode, Contract.read",
        "bare pydantic",
    ],
    "publish: 512 bytes, acknowledged": [
        "shared: Publisher.publish_all",
        "nats-py: publish, one by one",
        "nats-py: gather of publish",
        "nats-py: publish_async",
        "FastStream: publish, 256 at a time",
    ],
    "consume: an order, acknowledged": [
        "shared: typed handler",
        "shared: typed handler, spans not logged",
        "shared: typed handler of batches",
        "nats-py: fetch, one by one",
        "nats-py: push, callback",
        "nats-py: standing pull by hand",
        "FastStream: pull, its default",
        "FastStream: push, room for 10,000",
        "FastStream: pull, in batches",
    ],
    "consume: from idle, publishing to handler": [
        "shared: typed handler",
        "nats-py: push, callback",
        "nats-py: fetch(10, timeout=1)",
    ],
    **{
        f"publish-sizes: {size} bytes, acknowledged": [
            "shared: Publisher.publish_all",
            "nats-py: publish_async",
        ]
        for size in ("100", "1,000", "10,000", "100,000", "900,000")
    },
    "http: one request": HTTP,
    "http: one request to uvicorn": HTTP,
    "log: a line with six fields": [
        "shared: create_logger",
        "python-json-logger",
        "structlog, orjson",
        "stdlib text",
    ],
    "postgres: insert a row": [
        "shared: Repository.save",
        "asyncpg",
        "Core, autocommit",
        "Core, transaction",
        "ORM session",
        "advanced-alchemy",
    ],
    "postgres: get a row by its key": [
        "shared: Repository.get",
        "asyncpg",
        "Core, autocommit",
        "Core, transaction",
        "ORM session",
        "advanced-alchemy",
    ],
    "postgres: 10,000 rows at once, each": [
        "shared: Repository.copy",
        "shared: Repository.insert_many",
        "Core, executemany",
        "ORM add_all",
        "advanced-alchemy add_many",
    ],
    "postgres: a page of 50, 0 rows down": ["shared: page_by_key", "shared: list, by offset"],
    "postgres: a page of 50, 20 rows down": ["shared: page_by_key", "shared: list, by offset"],
    "outbox: the relay alone": [
        "an empty table",
        "1,000 kept rows",
        "an empty table, no batches",
        "an empty table, no spans",
    ],
    "outbox: 16 writers of one row each, to the last acknowledgement": [
        "an empty table",
        "1,000 kept rows",
        "asyncpg: the insert alone",
    ],
    "outbox: sync_interval always": [
        "shared: relay, atomic batches",
        "shared: relay, windows",
        "nats-py: publish, one by one",
    ],
    "inbox: a handler's transaction, 16 at once": ["with the inbox", "without"],
    "start: a program that imports": [
        "import shared.events",
        "import pydantic",
        "import faststream.nats",
        "an empty program",
    ],
    "start: what a service imports": ["import shared.service", "import fastapi, sqlalchemy, nats"],
    "start: a service until it is ready": ["shared: credit-service", "bare FastAPI, uvicorn"],
    "memory: idle, ready": ["shared: credit-service", "bare FastAPI"],
    "memory: 40 orders": [
        "at first",
        *(f"after {count} messages" for count in (10, 20, 30, 40)),
    ],
    "curves: publish, messages in flight": [f"{n} in flight" for n in (64, 1, 8, 512)],
    "curves: publish, subjects (or tenants) in one stream": [
        f"{count} subjects" for count in ("1", "100", "10,000")
    ],
    "curves: handle, messages at a time": [f"{n} at a time" for n in (64, 1, 8, 512)],
    "curves: handle, subscribers in the process": [f"{n} subscribers" for n in (1, 10, 100)],
    "curves: handle in order, keys (or tenants)": [
        f"{count} keys" for count in ("100", "1", "10,000")
    ],
    "curves: publish, streams on the server": [f"{n} streams" for n in (1, 10, 100)],
}
PARTS = sorted({title.split(":")[0] for title in CONTENDERS})


async def benchmarks(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


def rows(output: str) -> dict[str, list[str]]:
    """Return the names of the rows with figures, by the title they stand under."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in output.splitlines():
        if re.match(r"[a-z][a-z-]+: ", line):
            title = line.strip()
        elif row := re.match(r"\s+(\S.*?)\s{2,}[\d.]+\s+[\d.]+ -", line):
            found.setdefault(title, []).append(row[1])
    return found


@pytest.mark.parametrize("part", PARTS)
async def test_a_part_has_a_row_for_us_and_each_peer(part: str) -> None:
    status, output = await benchmarks(part, "--smoke")
    assert status == 0, output
    wanted = {title: rows for title, rows in CONTENDERS.items() if title.startswith(f"{part}:")}
    assert rows(output) == wanted


def test_no_part_is_left_out() -> None:
    source = (ROOT / "benchmarks" / "__main__.py").read_text()  # importing it would load the peers
    assert sorted(re.findall(r'^    [A-Z_]+ = "([a-z-]+)"$', source, re.MULTILINE)) == PARTS
