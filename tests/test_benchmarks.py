"""The benchmarks run, and name every contender; what they measure is for people to read."""

import asyncio
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.harness import Bench, Run
from benchmarks.outcomes import Comparison, Delays, Growth, Outcome, Sizes, Timing
from benchmarks.report import BEGIN, DOCS, END, report, section
from benchmarks.results import KEPT, Measured, Results, keep

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parent.parent

HTTP = [
    "shared: edge, unit of work",
    "bare FastAPI, SQLAlchemy",
    "Starlette, SQLAlchemy",
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
    "http: place an order": HTTP,
    "http: place an order, by uvicorn": HTTP,
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
        "shared: relay",
        "shared: relay, no batches",
        "shared: relay, no spans",
        "the rows alone, not relayed",
    ],
    "outbox: 16 writers of one row each, to the last acknowledgement": [
        "shared: unit of work, relay",
        "asyncpg: the insert alone",
        "SQLAlchemy: the insert alone",
    ],
    "outbox: sync_interval always, the relay": [
        "shared: relay, atomic batches",
        "shared: relay, windows",
        "asyncpg and nats-py: one by one",
    ],
    "outbox: sync_interval always, the publisher": [
        "shared: publish_atomic, 500 at a time",
        "nats-py: publish, one by one",
    ],
    **{
        f"outbox-sizes: {what}": [f"{rows} kept rows" for rows in ("0", "10", "100", "1,000")]
        for what in ("the relay alone", "16 writers and the relay")
    },
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
    "memory: orders, with a transaction each": ["0", "10", "20", "30", "40"],
    "memory: messages to a typed handler": ["0", "4", "10", "20", "40"],
    **{
        f"curves: {what}, size": [
            f"{count} bytes" for count in ("500", "100", "1,000", "10,000", "100,000", "900,000")
        ]
        for what in ("publish", "handle")
    },
    "curves: publish, messages in flight": [f"{n} in flight" for n in (64, 1, 8, 256, 512)],
    "curves: handle, messages at a time": [f"{n} at a time" for n in (64, 1, 8, 256, 512)],
    "curves: handle, subscribers in the process": [f"{n} subscribers" for n in (1, 10, 30, 100)],
    "curves: publish, subjects (or tenants) in one stream": [
        f"{count} subjects" for count in ("1", "100", "10,000")
    ],
    "curves: handle in order, keys (or tenants)": [
        f"{count} keys" for count in ("100", "1", "10,000")
    ],
    "curves: publish, streams on the server": [f"{n} streams" for n in (1, 10)],
}
PARTS = sorted({title.split(":")[0] for title in CONTENDERS})


async def benchmarks(*arguments: str, **environment: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks", *arguments),
        cwd=ROOT,
        env={**os.environ, **environment},
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
        elif row := re.match(r"\s+(\S.*?)\s{2,}[\d,.]+(?:\s+[\d,.]+ -|\s*$|\s+[+-])", line):
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


async def test_a_contender_that_takes_too_long_is_given_less_to_do_and_it_is_said() -> None:
    done: dict[str, list[int]] = {"quick": [], "slow": [], "slow too": []}

    def run(name: str, seconds: float) -> Run:
        async def run(operations: int) -> None:
            done[name].append(operations)
            await asyncio.sleep(seconds * operations)

        return run

    bench = Bench(repetitions=2, turn_seconds=0.1)
    await bench.compare("waits: one", 50, {"quick": run("quick", 0.0), "slow": run("slow", 0.01)})
    await bench.compare("waits: many", 50, {"slow": run("slow too", 0.01)}, whole=True)
    assert done["quick"] == [5, 50, 50]
    warm_up, given = done["slow"][:2], set(done["slow"][2:])
    assert warm_up == [5, 5]
    assert len(given) == 1
    assert max(given) < 50
    assert done["slow too"] == [5, 50, 50]
    last_cells = [row[-1] for outcome in bench.comparisons for row in outcome.rows()]
    assert last_cells == ["50", f"{max(given)} of 50", "50"]


def measured(*outcomes: Outcome, complete: bool = True) -> Measured:
    return Measured(
        taken=datetime(2026, 11, 23, 12, 0, tzinfo=UTC),
        machine="2 cores",
        versions={"orjson": "3.13.0"},
        repetitions=2,
        turn_seconds=1.5,
        complete=complete,
        outcomes=outcomes,
    )


LOG = Comparison(
    "log: a line",
    {
        "shared": [Timing(1e-6, 1e-6), Timing(2e-6, 1e-6)],
        "peer <1>": [Timing(4e-6, 2e-6), Timing(8e-6, 2e-6)],
    },
    500,
    {"shared": 500, "peer <1>": 200},
)
CURVE = Comparison(
    "curves: publish",
    {f"{n} bytes": [Timing(n * 1e-6, 1e-6)] for n in (100, 1000)},
    500,
    {"100 bytes": 500, "1000 bytes": 500},
    "bytes",
    {"100 bytes": 100, "1000 bytes": 1000},
)
OTHERS = (
    Delays("start: ready", {"shared": [0.5]}),
    Sizes("start: idle", {"shared": [60.0]}),
    Growth("start: orders", "orders", [0, 10, 2_000], [60.0, 62.5, 62.4]),
)


async def test_what_is_kept_comes_part_by_part_and_outlives_a_part_that_fails(
    tmp_path: Path,
) -> None:
    kept = tmp_path / "results.json"
    keep(kept, "envelope", measured(LOG))
    status, output = await benchmarks(
        *("memory", "log", "--repetitions", "1", "--turn-seconds", "0.01", "--save", str(kept)),
        GLAM_MESSAGES="as many as there are",
    )
    assert status == 1, output
    assert "failed: memory" in output
    assert rows(output).keys() == {"log: a line with six fields"}
    parts = Results.read(kept).parts
    assert parts.keys() == {"envelope", "log"}
    assert parts["envelope"] == measured(LOG)
    assert parts["log"].complete


def test_results_are_not_kept_in_the_place_of_something_else(tmp_path: Path) -> None:
    notes = tmp_path / "notes.json"
    notes.write_text('{"parts": 7}')
    with pytest.raises(ValueError, match="holds no results of benchmarks"):
        keep(notes, "log", measured(LOG))
    assert notes.read_text() == '{"parts": 7}'


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "performance.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    return tmp_path


def test_a_curve_may_begin_at_nothing(docs: Path) -> None:
    places = {f"{n:,} kept rows": float(n) for n in (0, 100, 1000)}
    timings = {name: [Timing(n * 1e-6, 1e-6)] for n, name in enumerate(places, start=1)}
    curve = Comparison("sizes: one", timings, 5, dict.fromkeys(places, 5), "kept rows", places)
    report(Results({"sizes": measured(curve)}), docs)
    picture = (docs / "pictures" / "sizes.svg").read_text()
    first, second, third = (float(x) for x in re.findall(r'<circle [^>]*cx="([\d.]+)"', picture))
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert [words for words in ("0", "100", "1k") if f">{words}</text>" in picture] == [
        *("0", "100", "1k")
    ]


def test_a_report_has_tables_pictures_the_machine_and_the_versions(docs: Path) -> None:
    results = Results({"log": measured(LOG), "curves": measured(CURVE), "start": measured(*OTHERS)})
    report(results, docs)
    text = (docs / "performance.md").read_text()
    assert text.startswith(f"before\n{BEGIN}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "| peer <1> | 6.0 | 4.0 - 8.0 | 2.0 | 0.25 | 0.50 | 200 of 500 |" in text
    assert "| 2,000 | 62.4 | -0.1 |" in text
    assert "2026-11-23 12:00 UTC, 2 cores; orjson 3.13.0; 2 repetitions" in text
    shown = re.findall(r"\]\((pictures/[a-z-]+\.svg)\)", text)
    assert shown == [f"pictures/{part}.svg" for part in ("log", "curves", "start")]
    for name in shown:
        picture = (docs / name).read_text()
        ET.fromstring(picture)
        assert "prefers-color-scheme: dark" in picture
        assert len(picture) < 40_000
    assert "4 x (6 µs)" in (docs / "pictures" / "log.svg").read_text()
    assert "62.4 MB" in (docs / "pictures" / "start.svg").read_text()


def test_the_same_results_make_the_same_report(docs: Path) -> None:
    Results({"log": measured(LOG), "curves": measured(CURVE)}).keep(docs / "results.json")
    report(Results.read(docs / "results.json"), docs)
    first = {file.name: file.read_bytes() for file in docs.rglob("*.*") if file.is_file()}
    report(Results.read(docs / "results.json"), docs)
    assert {file.name: file.read_bytes() for file in docs.rglob("*.*") if file.is_file()} == first


def test_a_part_that_was_stopped_is_shown_as_such(docs: Path) -> None:
    report(Results({"log": measured(LOG, complete=False)}), docs)
    assert "did not come to its end" in (docs / "performance.md").read_text()


def test_a_page_without_a_place_for_figures_is_left_alone(docs: Path) -> None:
    (docs / "performance.md").write_text("text\n")
    with pytest.raises(ValueError, match="needs a line"):
        report(Results({"log": measured(LOG)}), docs)
    assert (docs / "performance.md").read_text() == "text\n"
    assert not (docs / "pictures").exists()


def test_the_page_shows_what_is_kept() -> None:
    text = (DOCS / "performance.md").read_text()
    assert section(Results.read(KEPT)) in text
