"""A service as a process: SIGTERM in the middle of work loses nothing."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import httpx

from shared.config import DatabaseSettings, NatsSettings
from shared.dev import ServiceProcess
from shared.dev.environment import service_environment
from shared.dev.server import free_port
from shared.messaging import Bus

SLOW = """
import asyncio
import time
from pathlib import Path

from pydantic import BaseModel

from shared.delivery import UnitOfWork
from shared.events import Contract
from shared.service import Service, UnitOfWorkDep


class Greeting(BaseModel):
    merchant: str


GREET = Contract("cmd.merchant.greet", Greeting)
GREETED = Contract("evt.merchant.greeted", Greeting)
service = Service("slow-service", publishes=[GREET, GREETED])


@service.router.post("/greetings")
async def ask(greeting: Greeting, uow: UnitOfWorkDep) -> None:
    uow.outbox.add(GREET, greeting)


@service.handles(GREET, ack_wait_seconds=2)
async def greet(greeting: Greeting, uow: UnitOfWork) -> None:
    uow.outbox.add(GREETED, greeting)
    Path("begun").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.02)


@service.handles(GREETED)
async def greeted(greeting: Greeting) -> None:
    with Path("finished").open("a") as file:
        file.write(f"{greeting.merchant} ")
"""

# A thread cannot be cancelled.
STUBBORN = SLOW.replace("await asyncio.sleep(0.02)", "await asyncio.to_thread(time.sleep, 600)")


def slow_service(
    folder: Path, code: str, database: DatabaseSettings, nats: NatsSettings
) -> tuple[ServiceProcess, str]:
    """Return the service as a process, and where its routes are."""
    (folder / "slow.py").write_text(code)
    (folder / "config").mkdir()
    (folder / "config" / "shared.yml").write_text("environment: dev\n")
    port = free_port()
    base = f"http://127.0.0.1:{port}/api/v1"
    process = ServiceProcess(
        [sys.executable, "-m", "shared.cli", "run", "slow.py"],
        env=service_environment(
            "slow-service",
            database=database,
            nats_url=nats.servers[0],
            port=port,
            log_file=folder / "slow.jsonl",
        ),
        cwd=folder,
        log_file=folder / "output.log",
        ready_url=f"{base}/health/ready",
    )
    return process, base


async def test_sigterm_lets_the_running_handler_finish_while_readiness_says_503(
    tmp_path: Path, database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    process, base = slow_service(tmp_path, SLOW, database_settings, nats_settings)
    async with process, httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(120):
        await client.post(f"{base}/greetings", json={"merchant": "ada"})
        while not (tmp_path / "begun").exists():
            await asyncio.sleep(0.02)
        stopping = asyncio.create_task(process.stop())
        while (await client.get(f"{base}/health/ready")).status_code != 503:
            await asyncio.sleep(0.02)
        (tmp_path / "go").touch()
        await stopping
    assert process.returncode == 0

    process.log_file = tmp_path / "second.log"
    async with process, asyncio.timeout(120):
        while not (tmp_path / "finished").exists():
            await asyncio.sleep(0.02)
    assert (tmp_path / "finished").read_text() == "ada "
    lines = [json.loads(line) for line in (tmp_path / "slow.jsonl").read_text().splitlines()]
    handled = [line for line in lines if line.get("span") == "handle cmd.merchant.greet"]
    assert len(handled) == 1
    assert handled[0]["kind"] == "consumer"


async def test_a_second_sigterm_ends_at_once_what_the_first_waits_for_and_it_happens_once(
    tmp_path: Path, database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    process, base = slow_service(tmp_path, STUBBORN, database_settings, nats_settings)
    begun = tmp_path / "begun"
    async with process, httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(120):
        await client.post(f"{base}/greetings", json={"merchant": "ada"})
        while not begun.exists():
            await asyncio.sleep(0.02)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        while (await client.get(f"{base}/health/ready")).status_code != 503:
            await asyncio.sleep(0.02)
        assert process.running
        os.kill(process.pid, signal.SIGTERM)
        await process.wait(20)  # of the 600 s that its handler would go on

    begun.unlink()
    (tmp_path / "go").touch()
    process.log_file = tmp_path / "second.log"
    async with process, Bus(nats_settings, name="tests") as bus, asyncio.timeout(120):
        while not (tmp_path / "finished").exists():
            await asyncio.sleep(0.02)
        assert begun.exists()
        stream = await bus.js.stream_info("MERCHANT", subjects_filter="evt.merchant.greeted")
        assert stream.state.subjects == {"evt.merchant.greeted": 1}
    assert (tmp_path / "finished").read_text() == "ada "
