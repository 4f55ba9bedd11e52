from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import fastapi
import httpx
import pytest

from shared.api import create_log_level_router
from shared.logging.levels import undo_changes

MakeApp = Callable[..., fastapi.FastAPI]
Client = Callable[..., httpx.AsyncClient]

PATH = "/api/v1/log-level"


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    yield
    undo_changes()


@pytest.fixture
def caller(make_app: MakeApp, client: Client) -> httpx.AsyncClient:
    app = make_app()
    app.include_router(create_log_level_router(), prefix="/api/v1")
    return client(app)


def of(answer: httpx.Response, logger: str) -> dict[str, Any] | None:
    assert answer.status_code == 200
    found = {entry["logger"]: entry for entry in answer.json()["data"]}
    assert "root" in found
    return found.get(logger)


async def test_a_level_is_changed_for_a_while_and_back(caller: httpx.AsyncClient) -> None:
    logger = logging.getLogger("tests.log_level")
    async with caller:
        answer = await caller.put(PATH, json={"logger": logger.name, "level": "debug"})
        assert logger.level == logging.DEBUG
        changed = of(answer, logger.name)
        assert changed == of(await caller.get(PATH), logger.name)
        assert changed is not None
        assert (changed["level"], changed["configured"]) == ("DEBUG", "NOTSET")
        left = datetime.fromisoformat(changed["until"]) - datetime.now(UTC)
        assert timedelta(0) < left <= timedelta(minutes=15)
        answer = await caller.put(PATH, json={"logger": logger.name, "level": None})
        assert logger.level == logging.NOTSET
        assert of(answer, logger.name) is None


async def test_a_level_is_kept_when_no_time_is_wanted(caller: httpx.AsyncClient) -> None:
    before = logging.getLogger().level
    async with caller:
        change = {"level": "ERROR", "for_seconds": None}
        root = of(await caller.put(PATH, json=change), "root")
        assert root is not None
        assert (root["level"], root["until"]) == ("ERROR", None)
        assert root["configured"] == logging.getLevelName(before)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"level": "LOUD"},
        {"level": "DEBUG", "for_seconds": 0},
        {"level": "DEBUG", "for_seconds": True},
        {"level": "DEBUG", "for_seconds": 86_401},
        {"level": "DEBUG", "loger": "x"},
    ],
)
async def test_a_mistake_changes_nothing(caller: httpx.AsyncClient, wanted: dict[str, Any]) -> None:
    before = logging.getLogger().level
    async with caller:
        answer = await caller.put(PATH, json=wanted)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "VALIDATION_ERROR")
    assert logging.getLogger().level == before


async def test_a_logger_nobody_has_is_not_made(caller: httpx.AsyncClient) -> None:
    name = "tests.log_levle"
    async with caller:
        answer = await caller.put(PATH, json={"logger": name, "level": "DEBUG"})
    assert answer.status_code == 404
    assert answer.json()["error"]["details"]["resource_id"] == name
    assert name not in logging.getLogger().manager.loggerDict
