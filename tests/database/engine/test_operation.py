"""What keeps a database running: TLS, new passwords, standbys, slow statements, forgotten ones."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import text

from shared.config import DatabaseSettings
from shared.context import Context, bind
from shared.database import Database, tenant_scope
from shared.database.engine.instrumentation import trace_statements
from shared.database.engine.slow_queries import hide_values
from shared.dev import PostgresServer
from shared.errors import DatabaseError
from shared.testing import eventually
from shared.tracing import FinishedSpan, export_to
from tests.database.replica import StandbyServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.servers


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's user may enter, whoever runs the tests."""
    path = Path(tempfile.mkdtemp(prefix="glam-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


# -- TLS ---------------------------------------------------------------------------------------


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for `name` that signs itself, and its key."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", f"/CN={name}", "-addext", f"subjectAltName={name}"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def encrypted(
    postgres_server: PostgresServer, folder: Path
) -> AsyncIterator[tuple[DatabaseSettings, Path, Path]]:
    """PostgreSQL behind a door that speaks TLS to all, its certificate, and another one.

    The wheel's PostgreSQL is built without TLS, so the door is ours: it answers the SSLRequest
    (PostgreSQL manual, 54.2.10) and hands on what it decrypts.
    """
    cert, key = certificate(folder, "IP:127.0.0.1")
    other, _ = certificate(folder, "DNS:elsewhere")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)

    async def door(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(8) != _SSL_REQUEST:
            writer.close()
            return
        writer.write(b"S")
        try:
            await writer.start_tls(tls)
        except OSError:
            return
        inner = await asyncio.open_connection(postgres_server.host, postgres_server.port)
        await asyncio.gather(_pump(reader, inner[1]), _pump(inner[0], writer))

    async with await asyncio.start_server(door, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        yield postgres_server.settings.model_copy(update={"port": port}), cert, other


async def test_tls_in_every_mode_against_a_certificate_of_our_own(
    encrypted: tuple[DatabaseSettings, Path, Path],
) -> None:
    settings, mine, other = encrypted
    trusted = {"tls_ca_file": mine}

    async def gets_in(**changes: object) -> None:
        async with Database(settings.model_copy(update=changes)) as database:
            await database.ping()

    await gets_in(tls="prefer")
    await gets_in(tls="require")
    await gets_in(tls="verify-ca", **trusted)
    await gets_in(tls="verify-full", **trusted)
    await gets_in(tls="verify-ca", host="localhost", **trusted)
    for changes in (
        {"tls": "verify-ca", "tls_ca_file": other},
        {"tls": "verify-full"},
        {"tls": "verify-full", "host": "localhost", **trusted},
    ):
        with pytest.raises(DatabaseError, match="certificate verify failed") as caught:
            await gets_in(**changes)
        assert not caught.value.retryable
    with pytest.raises(DatabaseError):
        await gets_in(tls="disable")


@pytest.mark.parametrize(
    "wrong",
    [
        {"tls": "require", "tls_ca_file": "ca.crt"},
        {"tls": "verify-full", "tls_cert_file": "c.crt"},
        {"tls_cert_file": "c.crt", "tls_key_file": "c.key"},
        {"password": "x", "password_file": "x"},
        {"replicas": ("host:http",)},
    ],
)
def test_settings_that_do_not_fit_together(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DatabaseSettings.model_validate(wrong)


# -- passwords ---------------------------------------------------------------------------------


@pytest.fixture
async def guarded(folder: Path) -> AsyncIterator[PostgresServer]:
    """A server that asks services for a password."""
    rules = folder / "hba.conf"
    rules.write_text(
        "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    )
    async with PostgresServer(options={"hba_file": str(rules)}) as server:
        yield server


async def set_password(server: PostgresServer, password: str) -> None:
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"ALTER ROLE glam PASSWORD '{password}'")
    await connection.close()


async def test_a_new_password_is_taken_without_a_restart(
    guarded: PostgresServer, folder: Path
) -> None:
    file = folder / "password"
    file.write_text("first\n")
    await set_password(guarded, "first")
    settings = guarded.settings.model_copy(update={"password_file": file})
    async with Database(settings) as database:
        async with database.engine.connect() as kept:
            await kept.execute(text("SELECT 1"))
            await set_password(guarded, "second")

            async def write() -> None:
                await asyncio.sleep(0.1)
                file.write_text("second\n")

            writing = asyncio.create_task(write())  # a moment after PostgreSQL knows it
            async with database.engine.connect() as new:
                await new.execute(text("SELECT 1"))
            await writing
            await kept.execute(text("SELECT 1"))  # who is in stays in
        await set_password(guarded, "third")
        with pytest.raises(DatabaseError, match="asked for twice") as caught:
            await database.connect()
        assert caught.value.retryable
        assert "second" not in str(caught.value)


async def test_a_password_may_be_provided(guarded: PostgresServer) -> None:
    asked = 0

    async def provide() -> str:
        nonlocal asked
        asked += 1
        return "provided"

    await set_password(guarded, "provided")
    async with (
        Database(guarded.settings, password=provide) as database,
        database.engine.connect(),
        database.engine.connect(),
    ):
        pass
    assert asked == 2
    wrong = guarded.settings.model_copy(update={"password": SecretStr("guess")})
    async with Database(wrong) as database:
        with pytest.raises(DatabaseError) as caught:
            await database.ping()
    assert not caught.value.retryable


# -- standbys ----------------------------------------------------------------------------------

ON_STANDBY = text("SELECT pg_is_in_recovery()")


@contextmanager
def taking_spans() -> Iterator[list[FinishedSpan]]:
    taken: list[FinishedSpan] = []

    class Taker:
        def export(self, span: FinishedSpan) -> None:
            taken.append(span)

    export_to(Taker())
    try:
        yield taken
    finally:
        export_to(None)


async def reads_from_standby(database: Database, *, replica: bool = True) -> bool:
    async with database.transaction(read_only=True, replica=replica) as session:
        return bool(await session.scalar(ON_STANDBY))


async def test_read_only_work_goes_to_a_standby_while_it_is_there_and_near(
    own_postgres_server: PostgresServer,
) -> None:
    primary = own_postgres_server
    async with StandbyServer(primary) as standby:
        settings = primary.settings.model_copy(
            update={
                "replicas": (f"127.0.0.1:{standby.port}",),
                "replica_max_lag_seconds": 0.3,
                "connect_timeout_seconds": 2.0,
            }
        )
        async with Database(settings, application_name="reader") as database:
            async with database.transaction() as session:
                await session.execute(text("CREATE TABLE notes (word text)"))
                assert not await session.scalar(ON_STANDBY)

            async def is_read_from() -> bool:
                return await reads_from_standby(database)

            await eventually(is_read_from)
            assert not await reads_from_standby(database, replica=False)
            trace_statements(database)
            with taking_spans() as spans, bind(Context.start()):
                assert await is_read_from()
            (span,) = spans  # and none for the question how far behind it is
            assert span.attributes["server.port"] == standby.port
            async with database.transaction(read_only=True, isolation="serializable") as session:
                assert not await session.scalar(ON_STANDBY)
            (status,) = await database.replicas()
            assert status.usable
            assert status.lag_seconds == 0

            # Far behind: it replays nothing while more comes.
            admin = await asyncpg.connect(standby.url)
            await admin.execute("SELECT pg_wal_replay_pause()")
            async with database.transaction() as session:
                await session.execute(text("INSERT INTO notes VALUES ('new')"))

            async def is_avoided() -> bool:
                return not await reads_from_standby(database)

            await eventually(is_avoided)
            (status,) = await database.replicas()
            assert (status.usable, status.error) == (False, "too far behind")
            await admin.execute("SELECT pg_wal_replay_resume()")
            await admin.close()
            await eventually(is_read_from)

            # Gone: the next one to read does not notice.
            await standby.kill()
            assert not await reads_from_standby(database)
            (status,) = await database.replicas()
            assert not status.usable
            await standby.start()
            await eventually(is_read_from)
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]


# -- statements --------------------------------------------------------------------------------


async def test_a_slow_select_is_explained_on_request_without_its_values(
    database_settings: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = database_settings.model_copy(
        update={"slow_query_plan": True, "slow_query_seconds": 0.0}
    )

    def plans() -> list[dict[str, object]]:
        return [r.__dict__ for r in caplog.records if r.message == "plan of a slow statement"]

    async with Database(settings) as database:
        async with database.transaction() as session:
            await session.execute(text("CREATE TABLE people (email text, age int)"))
        context = Context.start()
        with bind(context):
            async with database.transaction() as session:
                await session.execute(text("INSERT INTO people VALUES ('me@x.org', 41)"))
                await session.execute(
                    text("UPDATE people SET age = 42 WHERE email = :email"), {"email": "me@x.org"}
                )
            async with database.transaction() as session:
                await session.execute(
                    text("SELECT * FROM people WHERE email = :email AND age > :age"),
                    {"email": "me@x.org", "age": 4141},
                )

        async def explained() -> bool:
            return bool(plans())

        await eventually(explained)
    (plan,) = plans()
    assert str(plan["statement"]).startswith("SELECT * FROM people")
    assert "Seq Scan on people" in str(plan["plan"])
    assert "me@x.org" not in caplog.text
    assert "4141" not in str(plan["plan"])


def test_a_plan_keeps_its_costs_and_names_and_loses_its_values() -> None:
    plan = (
        "Index Scan using ix_t1 on t1  (cost=0.15..8.17 rows=1 width=36)\n"
        "  Index Cond: (a1 = '5'::bigint)\n"
        "  Filter: ((b = 'it''s'::text) AND (c > '-2.5'::numeric) AND (d <> 77))"
    )
    assert hide_values(plan) == (
        "Index Scan using ix_t1 on t1  (cost=0.15..8.17 rows=1 width=36)\n"
        "  Index Cond: (a1 = '?'::bigint)\n"
        "  Filter: ((b = '?'::text) AND (c > '?'::numeric) AND (d <> ?))"
    )


async def test_a_transaction_that_waits_for_something_else_is_told_of_with_its_place(
    database_settings: DatabaseSettings, caplog: pytest.LogCaptureFixture
) -> None:
    settings = database_settings.model_copy(update={"idle_warning_seconds": 0.05})
    told = asyncio.Event()

    async def elsewhere() -> None:
        async with asyncio.timeout(120):
            while not any("task waits" in record.message for record in caplog.records):
                await asyncio.sleep(0.01)
        told.set()

    async with Database(settings, application_name="forgetful") as database:
        async with database.transaction() as session:
            await session.execute(text("SELECT 1"))
            await elsewhere()
        async with database.transaction() as session:
            await session.execute(text("SELECT 1"))
        await asyncio.sleep(0.1)  # long enough for a warning of what is over
    (record,) = [r for r in caplog.records if "task waits" in r.message]
    assert record.__dict__["last_statement"] == "SELECT"
    assert "test_operation.py" in record.__dict__["place"]
    assert "elsewhere" in record.__dict__["place"]


# -- a pooler ----------------------------------------------------------------------------------


async def test_behind_a_pooler_nothing_is_left_in_the_session(
    database_settings: DatabaseSettings,
) -> None:
    settings = database_settings.model_copy(
        update={"pgbouncer": True, "statement_timeout_seconds": 7.0}
    )
    show = "SELECT concat(current_setting('search_path'), ' ', current_setting({}))"
    both = text(show.format("'statement_timeout'"))
    async with Database(settings, schema="shop-1") as database:
        async with database.engine.connect() as connection:
            savepoint = await connection.begin_nested()
            assert await connection.scalar(both) == '"shop-1" 7s'
            await savepoint.rollback()
            assert await connection.scalar(both) == '"shop-1" 7s'
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await connection.rollback()
            # The session as the next client of a pooler would find it.
            left = await driver.fetchval(show.format("'statement_timeout'"))
            assert left == '"$user", public 0'
            assert await driver.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
        tenant = text("SELECT current_setting('glam.merchant_id', true)")
        with tenant_scope(UUID(int=7)):
            async with database.transaction() as session:
                assert await session.scalar(tenant) == str(UUID(int=7))
        async with database.transaction() as session:
            assert not await session.scalar(tenant)
