"""How long it takes until a program is there: imports, and a service until it is ready.

Each operation is a process of its own, on a warm cache of files and byte code. What makes the
comparison unfair:

- `import shared.events` has to be held against `import pydantic`, which it needs; the empty program
  is what Python itself takes.
- Our service is ready when its database is migrated, its streams and consumers are there and its
  relay runs; bare FastAPI has nothing of it, and is ready when it listens. Both are asked every
  ten milliseconds.
- The CPU time is that of the child processes.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from shared.dev import NatsServer, PostgresServer, ServiceProcess
from shared.dev.environment import service_environment
from shared.dev.server import free_port

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.harness import Bench, Measure, Run

_IMPORTS = 1
_STARTS = 1
_BARE = """\
import uvicorn
from fastapi import FastAPI

app = FastAPI()


@app.get("/api/v1/health/ready")
async def ready() -> dict[str, bool]:
    return {"ready": True}


uvicorn.run(app, port={port}, log_level="warning")
"""


async def start(bench: Bench) -> None:
    """Compare imports, and starts until ready."""
    imports = {
        "import shared.events": _program("import shared.events"),
        "import pydantic": _program("import pydantic"),
        "import faststream.nats": _program("import faststream.nats"),
        "an empty program": _program(""),
    }
    await bench.compare(
        "start: a program that imports", _IMPORTS, imports, cpu=dict.fromkeys(imports, _children)
    )
    chassis = {
        "import shared.service": _program("import shared.service"),
        "import fastapi, sqlalchemy, nats": _program(
            "import fastapi, sqlalchemy.ext.asyncio, asyncpg, nats"
        ),
    }
    await bench.compare(
        "start: what a service imports", _IMPORTS, chassis, cpu=dict.fromkeys(chassis, _children)
    )
    with tempfile.TemporaryDirectory(prefix="glam-start-") as folder:
        async with NatsServer() as nats, PostgresServer() as postgres:
            await bench.delays(
                "start: a service until it is ready",
                _STARTS,
                {
                    "shared: credit-service": _starts(credit_service(nats, postgres, Path(folder))),
                    "bare FastAPI, uvicorn": _starts(bare_service(Path(folder))),
                },
            )


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _program(text: str) -> Run:
    async def run(operations: int) -> None:
        for _ in range(min(operations, _IMPORTS)):
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", text)
            if await process.wait():
                raise RuntimeError(f"{text!r} failed")

    return run


def credit_service(
    nats: NatsServer, postgres: PostgresServer, folder: Path
) -> Callable[[], ServiceProcess]:
    """Return what makes a credit-service, each at a port of its own."""

    def process() -> ServiceProcess:
        port = free_port()
        return ServiceProcess(
            [sys.executable, "-m", "shared.cli", "run", "services.credit"],
            env=service_environment(
                "credit-service", database=postgres.settings, nats_url=nats.url, port=port
            ),
            log_file=folder / "service.log",
            ready_url=f"http://127.0.0.1:{port}/api/v1/health/ready",
        )

    return process


def bare_service(folder: Path) -> Callable[[], ServiceProcess]:
    """Return what makes a FastAPI application with nothing in it."""

    def process() -> ServiceProcess:
        port = free_port()
        return ServiceProcess(
            [sys.executable, "-c", _BARE.replace("{port}", str(port))],
            log_file=folder / "bare.log",
            ready_url=f"http://127.0.0.1:{port}/api/v1/health/ready",
        )

    return process


def _starts(process: Callable[[], ServiceProcess]) -> Measure:
    async def measure(operations: int) -> list[float]:
        seconds = []
        for _ in range(min(operations, _STARTS)):
            began = time.perf_counter()
            async with process():
                seconds.append(time.perf_counter() - began)
        return seconds

    return measure
