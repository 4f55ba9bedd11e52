import asyncio
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from shared.database import (
    DatabaseConfig,
    DatabaseSessionManager,
    DBSessionDep,
    create_database_config,
    get_database_health,
    set_database_manager,
)
from shared.legacy.database import dependencies as module


@pytest.fixture
async def manager(database_url: str, monkeypatch: pytest.MonkeyPatch) -> DatabaseSessionManager:
    monkeypatch.setattr(module, "_manager", None)
    manager = DatabaseSessionManager(database_url=database_url, echo=False, pool_size=2)
    set_database_manager(manager)
    await manager.init()
    async with manager.get_session() as session:
        await session.execute(text("CREATE TABLE notes (word text)"))
    return manager


async def words(manager: DatabaseSessionManager) -> list[str]:
    async with manager.get_session() as session:
        return list(await session.scalars(text("SELECT word FROM notes")))


async def test_close_is_harmless_twice_and_before_init(database_url: str) -> None:
    manager = DatabaseSessionManager(database_url, False)
    await manager.close()
    await manager.init()
    await manager.close()
    await manager.close()
    with pytest.raises(RuntimeError, match="init"):
        _ = manager.engine


async def test_the_dependency_commits_before_the_answer_and_rolls_back_on_errors(
    manager: DatabaseSessionManager,
) -> None:
    app = FastAPI()

    @app.post("/{word}")
    async def write(word: str, session: DBSessionDep) -> None:
        await session.execute(text("INSERT INTO notes VALUES (:word)"), {"word": word})
        if word == "bad":
            raise ZeroDivisionError
        if word == "slow":
            inside.set()
            await asyncio.sleep(60)

    inside = asyncio.Event()
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.post("/good")).status_code == 200
        assert (await client.post("/bad")).status_code == 500
        request = asyncio.create_task(client.post("/slow"))
        await inside.wait()
        request.cancel()
        await asyncio.wait([request])
    assert await words(manager) == ["good"]
    assert manager.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    await manager.close()


async def test_health(manager: DatabaseSessionManager, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await get_database_health()
    await manager.close()
    assert not await get_database_health()
    monkeypatch.setattr(module, "_manager", None)
    assert not await get_database_health()


async def test_the_dependency_may_be_used_by_its_function(manager: DatabaseSessionManager) -> None:
    app = FastAPI()

    @app.get("/")
    async def read(session: Annotated[AsyncSession, Depends(module.get_db_session)]) -> int:
        return len((await session.execute(text("SELECT * FROM notes"))).all())

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        assert (await client.get("/")).json() == 0
    await manager.close()


def test_config_reads_its_prefix_and_ignores_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in {
        "HOST": "db",
        "NAME": "shop",
        "USER": "me@x",
        "PASSWORD": "p@ss/w:rd",
        "ECHO": "true",
    }.items():
        monkeypatch.setenv(f"CREDIT_DB_{key}", value)
    config = create_database_config(prefix="CREDIT_")
    assert isinstance(config, DatabaseConfig)
    assert config.DB_ECHO
    assert config.DB_POOL_SIZE == 5
    assert config.database_url == ("postgresql+asyncpg://me%40x:p%40ss%2Fw%3Ard@db:5432/shop")
    assert "p@ss" not in repr(config)
    assert "p@ss" not in str(config)
    assert config


@pytest.mark.parametrize(("inside", "port"), [(True, 5432), (False, 6432)])
def test_the_external_port_is_for_outside_of_a_container(
    inside: bool, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLAM_IN_CONTAINER", "1" if inside else "0")
    config = DatabaseConfig(
        DB_HOST="h", DB_NAME="n", DB_USER="u", DB_PASSWORD="p", DB_PORT_EXTERNAL=6432
    )
    assert config.effective_port == port
