from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI

from shared.api import Probe, create_health_router

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@pytest.fixture
def ask(client: Any) -> Callable[..., Any]:
    async def get(path: str, probes: Sequence[Probe] = (), **options: Any) -> Any:
        app = FastAPI()
        app.include_router(
            create_health_router("shop-service", probes=probes, **options), prefix="/api/v1"
        )
        async with client(app) as http:
            head = await http.head(f"/api/v1{path}")
            answer = await http.get(f"/api/v1{path}")
        assert head.status_code == answer.status_code
        return answer

    return get


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/startup"])
async def test_a_service_that_answers_is_healthy(ask: Any, path: str) -> None:
    async def broken() -> None:
        raise AssertionError("liveness asks nobody")

    answer = await ask(path, [Probe("broken", broken)], draining=lambda: True)
    assert answer.status_code == 200
    assert answer.json().keys() == {"status", "service", "timestamp"}
    assert answer.json()["status"] == "healthy"
    assert answer.json()["service"] == "shop-service"
    assert datetime.fromisoformat(answer.json()["timestamp"]).tzinfo is not None


async def test_startup_waits_for_the_start(ask: Any) -> None:
    answer = await ask("/health/startup", started=lambda: False)
    assert (answer.status_code, answer.json()["status"]) == (503, "starting")


@dataclass
class Backlog:
    count: int


async def test_ready_shows_what_each_check_found(ask: Any) -> None:
    async def fine() -> bool:
        return True

    async def backlog() -> Backlog:
        return Backlog(3)

    answer = await ask("/health/ready", [Probe("fine", fine), Probe("outbox", backlog)])
    assert answer.status_code == 200
    checks = answer.json()["checks"]
    assert answer.json()["status"] == "ready"
    assert checks["fine"].keys() == {"status", "latency_ms"}
    assert checks["outbox"]["detail"] == {"count": 3}


async def test_checks_run_at_once_each_within_its_deadline(
    ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    together = asyncio.Barrier(2)
    released = asyncio.Event()

    async def meets() -> None:
        await together.wait()

    async def fails() -> None:
        raise ConnectionError("postgres://user:hunter2@db")

    async def says_no() -> bool:
        return False

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    answer = await ask(
        "/health/ready",
        [
            Probe("left", meets),
            Probe("right", meets),
            Probe("database", fails),
            Probe("no", says_no),
            Probe("stubborn", stubborn, timeout_seconds=0.01),
        ],
    )
    released.set()
    checks = answer.json()["checks"]
    assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
    assert {name: check["status"] for name, check in checks.items()} == {
        "left": "ok",
        "right": "ok",
        "database": "failed",
        "no": "failed",
        "stubborn": "timeout",
    }
    assert checks["database"]["error"] == "ConnectionError"
    assert "hunter2" not in answer.text
    told = {r.getMessage(): r.exc_info for r in caplog.records if r.levelno == logging.WARNING}
    assert told["probe database failed"]
    assert "probe stubborn took longer than 0.01 s" in told


async def test_a_check_that_is_no_coroutine_is_a_failed_check(ask: Any) -> None:
    def broken() -> Any:
        raise RuntimeError

    answer = await ask("/health/ready", [Probe("broken", broken)])
    assert answer.json()["checks"]["broken"]["error"] == "RuntimeError"


async def test_a_draining_service_wants_no_work_and_asks_nobody(ask: Any) -> None:
    async def broken() -> None:
        raise AssertionError

    answer = await ask("/health/ready", [Probe("broken", broken)], draining=lambda: True)
    assert (answer.status_code, answer.json()["status"]) == (503, "draining")
    assert answer.json()["checks"] == {}
