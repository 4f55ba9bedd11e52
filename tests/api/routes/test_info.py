from __future__ import annotations

import platform
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import fastapi
import httpx

from shared.api import create_info_router
from shared.config import ServiceSettings, explain

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

MakeApp = Callable[..., fastapi.FastAPI]
Client = Callable[..., httpx.AsyncClient]


async def ask(make_app: MakeApp, client: Client, **arguments: Any) -> httpx.Response:
    app = make_app()
    router = create_info_router("shop-service", version="1.2", **arguments)
    app.include_router(router, prefix="/api/v1")
    async with client(app) as caller:
        return await caller.get("/api/v1/info")


async def test_it_says_what_runs(make_app: MakeApp, client: Client) -> None:
    before = datetime.now(UTC)
    environ = {"GLAM_BUILD_REVISION": "0e9c", "GLAM_BUILD_TIME": "2026-11-23T10:00:00Z"}
    answer = (await ask(make_app, client, environ=environ)).json()
    data = answer["data"]
    assert answer["meta"]["request_id"]
    assert (data["service"], data["version"]) == ("shop-service", "1.2")
    assert data["build"] == {"revision": "0e9c", "time": "2026-11-23T10:00:00Z"}
    assert data["versions"] == {
        "python": platform.python_version(),
        **{name: version(name) for name in ("glam-shared", "fastapi", "nats-py", "sqlalchemy")},
    }
    assert before <= datetime.fromisoformat(data["started"]) <= datetime.now(UTC)
    assert data["uptime_seconds"] >= 0
    assert data["configuration"] == []


async def test_a_build_that_says_nothing_is_empty(make_app: MakeApp, client: Client) -> None:
    answer = await ask(make_app, client, environ={"GLAM_BUILD_REVISION": ""})
    assert answer.json()["data"]["build"] == {}


async def test_the_build_is_read_from_the_environment(
    make_app: MakeApp, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLAM_BUILD_REVISION", "0e9c")
    monkeypatch.delenv("GLAM_BUILD_TIME", raising=False)
    answer = await ask(make_app, client)
    assert answer.json()["data"]["build"] == {"revision": "0e9c"}


async def test_settings_come_with_their_origins_and_without_their_secrets(
    make_app: MakeApp, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "config" / "shared.yml"
    file.parent.mkdir()
    file.write_text("database:\n  host: db\n  password: hunter2\n")
    environ = {"SHOP_API__PORT": "9000", "SHOP_NATS_SERVERS": "nats://me:hunter2@bus:4222"}
    settings = explain(ServiceSettings, "shop-service", root=tmp_path, environ=environ)
    answer = await ask(make_app, client, configuration=settings)
    assert "hunter2" not in answer.text
    shown = {entry["key"]: entry for entry in answer.json()["data"]["configuration"]}
    assert shown["api.port"] == {"key": "api.port", "value": "9000", "origin": "SHOP_API__PORT"}
    assert shown["database.host"]["origin"].endswith("shared.yml:2")
    assert shown["database.password"]["value"] == "**********"
    assert shown["debug"]["origin"] == "default"
