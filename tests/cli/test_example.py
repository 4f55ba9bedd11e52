"""`examples/invoice.py`: a domain of its own, from one file, as a newcomer types it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml

EXAMPLE = Path(__file__).parents[2] / "examples" / "invoice.py"
GLAM = (sys.executable, "-m", "glam_start")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder with the one file."""
    shutil.copy(EXAMPLE, tmp_path)
    return tmp_path


def glam(folder: Path, *command: str) -> str:
    return subprocess.run(
        [*GLAM, *command], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def test_it_has_a_lock_and_an_asyncapi_document_of_its_own(folder: Path) -> None:
    assert "2 contracts" in glam(folder, "contracts", "lock", "invoice.py")
    locked = json.loads((folder / "contracts.lock.json").read_text())
    assert list(locked["contracts"]) == ["cmd.invoice.pay", "evt.invoice.paid"]
    assert "as locked" in glam(folder, "contracts", "check", "invoice.py")
    document = yaml.safe_load(glam(folder, "contracts", "asyncapi", "invoice.py"))
    assert list(document["channels"]) == ["cmd.invoice.pay", "evt.invoice.paid"]
    assert {c["x-jetstream-stream"] for c in document["channels"].values()} == {"INVOICE"}
    assert "Paid" in document["components"]["schemas"]


async def test_glam_up_runs_it_and_the_doctor_finds_the_servers(folder: Path) -> None:
    command = [*GLAM, "up", "invoice.py", "--no-reload"]
    with (folder / "told").open("wb") as told:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdout=told, stderr=told
        )
    try:
        async with asyncio.timeout(90):
            while "Ctrl-C" not in (shown := (folder / "told").read_text()):
                assert process.returncode is None, shown
                await asyncio.sleep(0.1)
            address = next(word for word in shown.split() if word.endswith("/api/v1/docs"))
            async with httpx.AsyncClient(trust_env=False) as client:
                invoice = {"number": "2026-1", "amount": "9.90"}
                answer = await client.post(
                    f"{address.removesuffix('/docs')}/invoices", json=invoice
                )
                assert answer.status_code == 202
            log = folder / ".glam" / "logs" / "invoice-service.jsonl"
            while "invoice 2026-1 is paid" not in log.read_text():
                await asyncio.sleep(0.1)
            # The servers may have other ports than the usual ones: the doctor is told which.
            found = json.loads(
                await asyncio.to_thread(glam, folder, "doctor", "invoice.py", "--json")
            )
            assert {each["severity"] for each in found} <= {"ok", "note"}
            assert len(found) > 3
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()
    assert process.returncode == 0


def test_glam_up_starts_nothing_for_a_service_that_is_not_there(folder: Path) -> None:
    told = subprocess.run(
        [*GLAM, "up", "nope.py"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert told.returncode == 2
    assert "there is no file" in told.stderr
    assert "starting servers" not in told.stdout
