"""A service as a process: SIGTERM in the middle of work loses nothing."""

import asyncio
import json
import sys
from pathlib import Path

import httpx

from shared.config import DatabaseSettings, NatsSettings
from shared.dev import ServiceProcess
from shared.dev.environment import service_environment
from shared.dev.server import free_port

SLOW = """
import asyncio
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


@service.handles(GREET)
async def greet(greeting: Greeting, uow: UnitOfWork) -> None:
    Path("begun").touch()
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    uow.outbox.add(GREETED, greeting)


@service.handles(GREETED)
async def greeted(greeting: Greeting) -> None:
    Path("finished").write_text(greeting.merchant)
"""


async def test_sigterm_lets_the_running_handler_finish_while_readiness_says_503(
    tmp_path: Path, database_settings: DatabaseSettings, nats_settings: NatsSettings
) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "shared.yml").write_text("environment: dev\n")
    port = free_port()
    base = f"http://127.0.0.1:{port}/api/v1"
    process = ServiceProcess(
        [sys.executable, "-m", "shared.cli", "run", "slow.py"],
        env=service_environment(
            "slow-service",
            database=database_settings,
            nats_url=nats_settings.servers[0],
            port=port,
            log_file=tmp_path / "slow.jsonl",
        ),
        cwd=tmp_path,
        log_file=tmp_path / "output.log",
        ready_url=f"{base}/health/ready",
    )
    async with process, httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(30):
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
    async with process, asyncio.timeout(30):
        while not (tmp_path / "finished").exists():
            await asyncio.sleep(0.02)
    assert (tmp_path / "finished").read_text() == "ada"
    lines = [json.loads(line) for line in (tmp_path / "slow.jsonl").read_text().splitlines()]
    handled = [line for line in lines if line.get("span") == "handle cmd.merchant.greet"]
    assert len(handled) == 1
    assert handled[0]["kind"] == "consumer"
