"""The README is the first user: its block runs as printed."""

import asyncio
import re
import sys
from pathlib import Path

import httpx
import pytest

from shared.dev import ServiceProcess

pytestmark = pytest.mark.servers

README = Path(__file__).parent.parent / "README.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def test_the_block_has_at_most_thirty_lines() -> None:
    assert len(block("python").splitlines()) <= 30


async def test_the_block_runs_as_printed_and_its_trace_is_drawn(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(block("python"))
    output = tmp_path / "output.log"
    up = ServiceProcess(
        [sys.executable, "-m", "shared.cli", "up", "hello.py"],
        cwd=tmp_path,
        env={"COLUMNS": "200"},
        log_file=output,
    )
    async with up, httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(120):
        while (address := re.search(r"(http://\S+)/docs", output.read_text())) is None:
            assert up.returncode is None, output.read_text()
            await asyncio.sleep(0.05)
        answer = await client.post(f"{address[1]}/greetings", json={"merchant": "ada"})
        assert answer.status_code == 202
        while True:
            drawn = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "shared.cli", "trace", answer.headers["X-Trace-ID"]),
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            tree = (await drawn.communicate())[0].decode()
            if "publish evt.merchant.greeted" in tree:
                break
            await asyncio.sleep(0.1)
    order = [
        tree.index("POST"),
        tree.index("publish cmd.merchant.greet"),
        tree.index("handle cmd.merchant.greet"),
        tree.index("publish evt.merchant.greeted"),
    ]
    assert order == sorted(order)
    assert "hello, ada" in output.read_text()
