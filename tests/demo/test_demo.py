"""The demonstration, as typed: it ends well, takes a file, and leaves nothing behind."""

import asyncio
import json
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from demo.orders import make_orders

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def demonstration(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "demo", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def played(*arguments: str) -> tuple[int | None, str]:
    async with demonstration(*arguments) as process:
        output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_fast_day_ends_with_every_check_ok() -> None:
    status, output = await played("--fast", "--seed", "11")
    assert status == 0, output
    assert "FAILED" not in output
    assert output.count("\n  ok ") == 9
    assert "SIGKILL after" in output
    assert "everything holds" in output


async def test_orders_come_from_a_file_and_broken_lines_are_told_by_number(tmp_path: Path) -> None:
    orders = [version.body for version in make_orders(40, random.Random(2))]
    orders[2:2] = [b"{broken", json.dumps({"id": 1, "line_items": "none"}).encode()]
    file = tmp_path / "orders.jsonl"
    file.write_bytes(b"\n".join(orders) + b"\n")
    status, output = await played("--orders", str(file))
    assert status == 0, output
    assert "orders.jsonl:3: skipped:" in output
    assert "orders.jsonl:4: skipped:" in output
    assert "orders.jsonl:5" not in output


async def test_a_file_without_an_order_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text("nothing\n")
    status, output = await played("--orders", str(file))
    assert status == 2
    assert "no order in it" in output


def listening(process: psutil.Process) -> set[int]:
    try:
        connections = process.net_connections("tcp")
    except psutil.NoSuchProcess:  # PostgreSQL's children come and go
        return set()
    return {c.laddr.port for c in connections if c.status == psutil.CONN_LISTEN}


async def test_ctrl_c_leaves_no_process_and_no_port() -> None:
    async with demonstration("--count", "200") as process:
        assert process.stdout is not None
        async for line in process.stdout:
            if b"morning" in line:
                break
        family = psutil.Process(process.pid).children(recursive=True)
        ports = {port for member in family for port in listening(member)}
        assert len(ports) >= 5  # NATS, PostgreSQL, three services
        process.send_signal(signal.SIGINT)
        await process.communicate()
        assert process.returncode == 128 + signal.SIGINT
    assert not [member for member in family if member.is_running()]
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
