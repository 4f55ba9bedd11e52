"""The doctor at real servers: each illness made for real and found; the healthy left in peace."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from nats.js.api import ConsumerConfig, RetentionPolicy, StreamConfig
from pydantic import BaseModel
from sqlalchemy import text

from shared.config import DatabaseSettings, DeliverySettings, NatsSettings, ServiceSettings
from shared.database import Database, migrate
from shared.delivery import UnitOfWork
from shared.dev import NatsServer, PostgresServer
from shared.doctor import CODES, Finding, Severity, examine
from shared.doctor.checked_service import CheckedService, duration
from shared.doctor.checks.server import judge_clock
from shared.doctor.checks.streams import _copies
from shared.doctor.finding import Findings
from shared.doctor.releases import judge_release
from shared.events import JSON, Contract, StreamDefinition
from shared.messaging import (
    Bus,
    DeadLetters,
    Delivery,
    Inspection,
    OutgoingMessage,
    ReplicaFacts,
    RetryPolicy,
)
from shared.messaging.streams.consumers import ensure_consumer
from shared.platform.streams import STREAMS
from shared.service import Service


class Greeting(BaseModel):
    merchant: str


GREET = Contract("cmd.merchant.greet", Greeting)
DURABLE = "hello-service-greet"
DAY = 24 * 3600
NO_DATABASE = DatabaseSettings(enabled=False)


def hello_service(**options: Any) -> Service[ServiceSettings]:
    service = Service("hello-service", publishes=[GREET])

    @service.handles(GREET, **options)
    async def greet(greeting: Greeting, uow: UnitOfWork) -> None: ...

    return service


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def monitored() -> Iterator[tuple[NatsServer, str]]:
    """A server that syncs always and says so."""
    port = free_port()
    server = NatsServer(jetstream={"sync_interval": "always"}, config={"http": f"127.0.0.1:{port}"})
    with asyncio.Runner() as runner:
        runner.run(server.start())
        yield server, f"http://127.0.0.1:{port}"
        runner.run(server.stop())


def on_nats(nats: NatsSettings, **options: Any) -> ServiceSettings:
    return ServiceSettings(nats=nats, database=NO_DATABASE, **options)


async def ill(
    service: Service[ServiceSettings], settings: ServiceSettings, **options: Any
) -> dict[str, Finding]:
    found = await examine([service], settings={service.name: settings}, **options)
    for finding in found:
        assert finding.code in CODES
        assert finding.severity is Severity.OK or finding.fix
    return {f.code: f for f in found if f.severity is not Severity.OK}


async def test_a_healthy_system_is_left_in_peace(
    monitored: tuple[NatsServer, str], database_settings: DatabaseSettings
) -> None:
    server, monitoring = monitored
    nats = NatsSettings(servers=(server.url,))
    settings = ServiceSettings(nats=nats, database=database_settings)
    service = hello_service()
    async with service.assemble(settings) as application:
        async with application.unit_of_work() as uow:
            uow.outbox.add(GREET, Greeting(merchant="one"))
        found: list[Finding] = []
        async with asyncio.timeout(120):
            # The subscriber and the relay need a moment to be at work.
            while not found or any(finding.severity is not Severity.OK for finding in found):
                found = await examine(
                    [service], settings={service.name: settings}, monitoring=monitoring
                )
    assert {f.code for f in found} == {"server", "stream", "consumer", "database", "contracts"}


async def test_nothing_there_is_told_and_what_is_away_stops_nothing(
    nats_settings: NatsSettings, database_settings: DatabaseSettings
) -> None:
    settings = ServiceSettings(nats=nats_settings, database=database_settings)
    found = await ill(hello_service(), settings)
    assert {"stream-missing", "schema-revision", "outbox-missing"} <= found.keys()

    nowhere = NatsSettings(servers=(f"nats://127.0.0.1:{free_port()}",), connect_timeout_seconds=1)
    found = await ill(hello_service(), settings.model_copy(update={"nats": nowhere}))
    assert {"nats-unreachable", "schema-revision"} <= found.keys()
    gone = database_settings.model_copy(update={"port": free_port()})
    found = await ill(hello_service(), settings.model_copy(update={"database": gone}))
    assert {"database-unreachable", "stream-missing"} <= found.keys()


# -- streams ------------------------------------------------------------------------------------


@asynccontextmanager
async def merchant_stream(nats: NatsSettings, **made: Any) -> AsyncIterator[Bus]:
    """The stream as declared, but for what is given."""
    async with Bus(nats, name="tests") as bus:
        await bus.ensure_stream(STREAMS["MERCHANT"])
        if made:
            config = (await bus.js.stream_info("MERCHANT")).config
            if not made.keys() <= {"max_age", "duplicate_window", "subjects", "max_bytes"}:
                await bus.js.delete_stream("MERCHANT")
                await bus.js.add_stream(replace(config, **made))
            else:
                await bus.js.update_stream(replace(config, **made))
        yield bus


@pytest.mark.parametrize(
    ("made", "code", "told"),
    [
        ({"subjects": ["cmd.merchant.greet"]}, "stream-subjects", "evt.merchant.>"),
        ({"retention": RetentionPolicy.WORK_QUEUE}, "stream-refused", "retention is workqueue"),
        ({"max_age": 3 * 3600}, "stream-limits", "max_age is to become"),
        ({"max_age": 60, "duplicate_window": 60}, "stream-max-age", "1 min"),
        ({"max_age": 0}, "inbox-retention", "for ever"),
        ({"max_age": 60 * DAY}, "inbox-retention", "does not start"),
        ({"max_age": 60 * DAY}, "outbox-retention", "60 d"),
        ({"duplicate_window": 5}, "dedupe-window", "takes over after 16 s"),
        ({"allow_msg_schedules": False}, "stream-features", "max_ack_pending"),
        ({"allow_atomic": False}, "stream-features", "atomic batches"),
        ({"deny_delete": True}, "stream-drift", "deny_delete is True"),
    ],
)
async def test_a_stream_that_is_not_as_declared(
    nats_settings: NatsSettings,
    database_settings: DatabaseSettings,
    made: dict[str, Any],
    code: str,
    told: str,
) -> None:
    needs_outbox = code == "outbox-retention"
    settings = on_nats(nats_settings)
    if needs_outbox:
        settings = settings.model_copy(update={"database": database_settings})
    async with merchant_stream(nats_settings, **made):
        found = await examine([hello_service()], settings={"hello-service": settings})
    assert any(told in f.what for f in found if f.code == code), found


async def test_a_stream_that_is_nearly_full(nats_settings: NatsSettings) -> None:
    async with merchant_stream(nats_settings, max_bytes=1000) as bus:
        # Widened again by nobody: the bus that declares it is not started.
        await bus.publisher.publish(OutgoingMessage(GREET.subject, b"x" * 850, {}, "one"))
        found = await ill(hello_service(), on_nats(nats_settings))
    assert "drops its oldest messages" in found["stream-full"].what


async def test_subjects_that_another_stream_holds(nats_settings: NatsSettings) -> None:
    async with Bus(nats_settings, name="tests") as bus:
        await bus.js.add_stream(StreamConfig(name="OTHER", subjects=["cmd.merchant.greet"]))
        found = await ill(hello_service(), on_nats(nats_settings))
    assert "OTHER takes cmd.merchant.greet" in found["stream-subjects"].what


async def test_fewer_copies_than_asked_for(nats_settings: NatsSettings) -> None:
    async with merchant_stream(nats_settings):
        wanted = nats_settings.model_copy(update={"replicas": 3})
        found = await ill(hello_service(), on_nats(wanted, environment="staging"))
    assert "--replicas=3" in found["stream-replicas"].fix
    assert "stream-single-copy" in found


async def test_replicas_that_are_away(nats_settings: NatsSettings) -> None:
    # A cluster that is ill in this way answers so; one server cannot be brought to it.
    async with merchant_stream(nats_settings) as bus:
        facts = await Inspection(bus).stream("MERCHANT")
        assert facts is not None
    copies = (
        ReplicaFacts("n2", current=False, offline=True),
        ReplicaFacts("n3", current=True, offline=False),
    )
    checked = CheckedService(hello_service(), on_nats(nats_settings), "hello.py")
    found = Findings("stream MERCHANT")
    _copies(replace(facts, leader=None, replicas=copies), [checked], found)
    assert [f.code for f in found] == ["stream-leader", "stream-copies"]
    assert "n2 (offline)" in found[1].what


async def test_what_remembers_too_briefly(nats_settings: NatsSettings) -> None:
    service = hello_service()

    @service.handles(GREET)
    async def again(greeting: Greeting) -> None: ...

    settings = on_nats(nats_settings).model_copy(
        update={"delivery": DeliverySettings(inbox_retention_hours=336)}
    )
    async with merchant_stream(nats_settings):
        found = await ill(service, settings)
    assert "without an inbox: hello-service-again" in found["dedupe-outage"].what
    assert found["inbox-replay"].severity is Severity.NOTE


async def test_dead_letters_are_counted_by_handler(nats_settings: NatsSettings) -> None:
    async with merchant_stream(nats_settings) as bus:
        for number in (1, 2):
            await DeadLetters(bus).store(
                Delivery(GREET.subject, b"", {}, "MERCHANT", number, 1, datetime.now(UTC)),
                durable=DURABLE,
                service="hello-service",
                reason="rejected",
                error=ValueError("not so"),
            )
        found = await ill(hello_service(), on_nats(nats_settings))
    assert found["dead-letters"].about == f"consumer {DURABLE}"
    assert found["dead-letters"].what.startswith("2 dead letters")


# -- consumers ----------------------------------------------------------------------------------


@asynccontextmanager
async def consumer(
    nats: NatsSettings, service: Service[ServiceSettings], *, messages: int = 0, **made: Any
) -> AsyncIterator[Bus]:
    """The handler's consumer as declared, but for what is given."""
    async with merchant_stream(nats) as bus:
        if made:
            config: dict[str, Any] = {
                "durable_name": DURABLE,
                "ack_policy": "explicit",
                "max_deliver": -1,
            }
            config |= {"filter_subject": GREET.subject, "ack_wait": 30}
            config |= {"max_deliver": -1, "max_ack_pending": 10_000}
            await bus.js.add_consumer("MERCHANT", ConsumerConfig(**(config | made)))
        else:
            checked = CheckedService(service, on_nats(nats), "hello.py")
            await ensure_consumer(bus, checked.subscription(service.handlers[0]))
        for number in range(messages):
            await bus.publisher.publish(OutgoingMessage(GREET.subject, b"{}", {}, f"m{number}"))
        yield bus


@pytest.mark.parametrize(
    ("made", "code", "told"),
    [
        ({"filter_subject": "cmd.merchant.>"}, "consumer-filter", "cmd.merchant.>"),
        ({"max_deliver": 5}, "consumer-max-deliver", "after 5 deliveries"),
        ({"ack_wait": 7}, "consumer-config", "ack_wait is 7 s, declared 30 s"),
        ({"max_ack_pending": 20}, "consumer-ack-pending", "handle 32"),
    ],
)
async def test_a_consumer_that_is_not_as_declared(
    nats_settings: NatsSettings, made: dict[str, Any], code: str, told: str
) -> None:
    service = hello_service()
    async with consumer(nats_settings, service, **made):
        found = await ill(service, on_nats(nats_settings), replicas=2)
    assert told in found[code].what
    assert "consumer-unread" not in found


async def test_a_handler_without_a_consumer(nats_settings: NatsSettings) -> None:
    async with merchant_stream(nats_settings):
        assert "consumer-missing" in await ill(hello_service(), on_nats(nats_settings))


async def test_messages_that_nobody_asks_for(nats_settings: NatsSettings) -> None:
    service = hello_service()
    async with consumer(nats_settings, service, messages=3):
        found = await ill(service, on_nats(nats_settings))
    assert found["consumer-unread"].what.startswith("3 messages wait")


async def test_a_consumer_that_is_stuck_and_fails_again_and_again(
    nats_settings: NatsSettings,
) -> None:
    service = hello_service(concurrency=1)
    async with consumer(nats_settings, service, messages=14, max_ack_pending=12) as bus:
        pull = await bus.js.pull_subscribe_bind(DURABLE, "MERCHANT")
        for _ in range(2):
            held = await pull.fetch(12, timeout=5)
            for message in held:
                await message.nak()
            await bus.client.flush()
        await pull.fetch(12, timeout=5)
        found = await ill(service, on_nats(nats_settings))
        assert "12 of 12 messages are out" in found["consumer-stuck"].what
        assert "12 of the 12" in found["consumer-redelivered"].what


async def test_messages_that_wait_for_long(
    nats_settings: NatsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = hello_service(concurrency=1)
    async with consumer(nats_settings, service, messages=2) as bus:
        pull = await bus.js.pull_subscribe_bind(DURABLE, "MERCHANT")
        await pull.fetch(1, timeout=5)
        assert "consumer-backlog" not in await ill(service, on_nats(nats_settings))
        monkeypatch.setattr("shared.doctor.checks.consumers._LATE_SECONDS", 0.0)
        found = await ill(service, on_nats(nats_settings))
    assert found["consumer-backlog"].what.startswith("1 messages wait")


async def test_a_paused_consumer_and_one_of_nobody(nats_settings: NatsSettings) -> None:
    service = hello_service()
    async with consumer(nats_settings, service) as bus:
        until = datetime.now(UTC) + timedelta(hours=5)
        await bus.js.pause_consumer("MERCHANT", DURABLE, until.isoformat())
        await bus.js.add_consumer("MERCHANT", durable_name="hello-service-old")
        await bus.js.add_consumer("MERCHANT", durable_name="other-service-greet")
        found = await ill(service, on_nats(nats_settings))
    assert "paused for another" in found["consumer-paused"].what
    assert found["consumer-orphan"].about == "consumer hello-service-old"
    assert found["consumer-orphan"].fix == "nats consumer rm MERCHANT hello-service-old"


async def test_an_ordered_consumer_as_declared_is_well(nats_settings: NatsSettings) -> None:
    service = hello_service(order_by="merchant")
    async with consumer(nats_settings, service):
        found = await ill(service, on_nats(nats_settings))
    assert found.keys() == {"sync-interval"}


async def test_what_a_handler_declares_is_judged_too(nats_settings: NatsSettings) -> None:
    service = hello_service(ack_wait_seconds=1, retry=RetryPolicy(outage_seconds=8 * DAY))
    async with consumer(nats_settings, service):
        found = await ill(service, on_nats(nats_settings))
    assert {"consumer-ack-wait", "stream-max-age"} <= found.keys()


# -- the server ---------------------------------------------------------------------------------


async def test_a_server_with_little_room() -> None:
    port = free_port()
    account = {"jetstream": {"max_ack_pending": 100, "max_store": 4000}}
    config = {
        "http": f"127.0.0.1:{port}",
        "max_payload": 65536,
        "accounts": {"A": {**account, "users": [{"user": "a", "password": "a"}]}},
        "no_auth_user": "a",
    }
    async with NatsServer(config=config) as server:
        nats = NatsSettings(servers=(server.url,), claim_check_bytes=100_000)
        async with Bus(nats, name="tests") as bus:
            await bus.js.add_stream(
                StreamConfig(name="MERCHANT", subjects=["cmd.merchant.>", "evt.merchant.>"])
            )
            await bus.publisher.publish(OutgoingMessage(GREET.subject, b"x" * 3700, {}, "one"))
        found = await ill(
            hello_service(),
            on_nats(nats, environment="staging"),
            monitoring=f"http://127.0.0.1:{port}",
        )
        assert {"max-payload", "storage-left", "ack-pending-limit"} <= found.keys()
        assert found["max-payload"].fix == "nats.claim_check_bytes: 57344"
        assert found["sync-interval"].severity is Severity.WARNING
        assert "every 2 min" in found["sync-interval"].what
        elsewhere = await ill(hello_service(), on_nats(nats), monitoring="http://127.0.0.1:1")
        assert elsewhere["sync-interval"].what.startswith("unknown")
        small = on_nats(nats.model_copy(update={"claim_check_bytes": None}))
        assert "less than its default" in (await ill(hello_service(), small))["max-payload"].what


async def test_a_server_without_jetstream() -> None:
    server = NatsServer()
    server._config = lambda: {"server_name": "bare", "host": server.host, "port": server.port}  # type: ignore[method-assign]
    async with server:
        found = await ill(hello_service(), on_nats(NatsSettings(servers=(server.url,))))
    assert found.keys() == {"jetstream-off"}


async def test_a_clock_that_is_wrong(
    nats_settings: NatsSettings,
    database_settings: DatabaseSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def late() -> datetime:
        return datetime.now(UTC) - timedelta(seconds=100)

    monkeypatch.setattr("shared.messaging.streams.store._now", late)
    monkeypatch.setattr("shared.doctor.checks.database._now", late)
    settings = on_nats(nats_settings).model_copy(update={"database": database_settings})
    async with merchant_stream(nats_settings):
        found = await examine([hello_service()], settings={"hello-service": settings})
    told = [f for f in found if f.code == "clock-skew"]
    assert {f.about.split()[0] for f in told} == {"server", "database"}
    assert all("100.0 s ahead of" in f.what and f.severity is Severity.ERROR for f in told)


def test_a_difference_of_clocks_that_may_be_the_way_there_is_none() -> None:
    found = Findings("server")
    judge_clock(found, 3.0, 2.5)
    assert found == []
    judge_clock(found, -3.0, 0.5)
    assert [f.severity for f in found] == [Severity.WARNING]


def test_releases_are_judged_by_what_is_documented() -> None:
    def codes(*version: int) -> list[str]:
        return [f.code for f in judge_release((version[0], version[1], version[2]))]

    assert codes(2, 15, 1) == codes(2, 12, 5) == []
    assert codes(2, 9, 25) == ["server-version"]
    assert codes(2, 10, 22) == ["server-version", "server-version", "known-loss"]
    assert codes(2, 11, 3) == ["server-version"]
    assert codes(2, 12, 1) == codes(2, 12, 4) == ["known-loss"]
    assert "2.10.23" in judge_release((2, 10, 22))[-1].fix


# -- the database -------------------------------------------------------------------------------


async def test_an_ill_outbox(
    nats_settings: NatsSettings,
    database_settings: DatabaseSettings,
    postgres_server: PostgresServer,
) -> None:
    superuser = urlsplit(postgres_server.url).username
    settings = ServiceSettings(nats=nats_settings, database=database_settings)
    service = hello_service()
    async with Database(database_settings, schema="hello") as database:
        await migrate(database, migrations=service.migrations)
        for statement in (
            "ALTER TABLE outbox SET (autovacuum_enabled = false)",
            "ALTER TABLE outbox RESET (autovacuum_vacuum_scale_factor)",
            """INSERT INTO outbox (event_id, subject, message_id, headers, body)
            SELECT n::text, 's', n::text, '{}', '' FROM generate_series(1, 60000) AS n""",
            "DELETE FROM outbox",
            """INSERT INTO outbox (event_id, subject, message_id, headers, body, created_at,
              available_at, attempts, last_error) VALUES ('e', 'cmd.merchant.greet', 'e', '{}', '',
              now() - interval '1 hour', now() - interval '1 hour', 2, 'no stream takes it')""",
            "UPDATE outbox_leases SET owner = 'dead', expires_at = now() - interval '1 minute'",
            "CREATE TABLE accounts (merchant_id uuid)",
            "CREATE POLICY merchant ON accounts USING (true)",
            "SELECT pg_stat_force_next_flush()",
        ):
            async with database.transaction() as session:
                await session.execute(text(statement))
        async with database.transaction() as open_for_long:
            await open_for_long.execute(text("SELECT 1"))
            strange = settings.model_copy(update={"environment": "prod"})
            strange = strange.model_copy(
                update={
                    "database": database_settings.model_copy(
                        update={
                            "user": superuser,
                            "statement_timeout_seconds": 0.0,
                            "pool_size": 5000,
                        }
                    )
                }
            )
            found = await ill(service, strange, long_transaction_seconds=0.0)
            assert "VACUUM" in found["table-bloat"].fix
            assert "no stream takes it" in found["outbox-failing"].what
            assert found["outbox-backlog"].severity is Severity.ERROR
            assert "16 of 16 partitions" in found["outbox-leases"].what
            assert "accounts rely on" in found["database-superuser"].what
            assert found["database-superuser"].severity is Severity.ERROR
            assert found["connection-limit"].severity is Severity.ERROR
            assert {"autovacuum", "long-transaction", "statement-timeout"} <= found.keys()
            told = await examine([service], settings={service.name: strange})
            fixes = [f.fix for f in told if f.code == "autovacuum"]
            assert len(fixes) == 2
        for fix in fixes:
            async with database.transaction() as session:
                await session.execute(text(fix))
        async with database.transaction() as session:
            await session.execute(text("UPDATE alembic_version SET version_num = 'delivery_0001'"))
            assert await session.scalar(text("SELECT count(*) FROM outbox")) == 1
        found = await ill(service, settings)
        assert "autovacuum" not in found
        assert "glam migrate up" in found["schema-revision"].fix


# -- contracts and the table --------------------------------------------------------------------


async def test_a_subject_in_two_forms_and_one_of_no_stream(nats_settings: NatsSettings) -> None:
    service = Service(
        "hello-service",
        publishes=[
            GREET,
            Contract(GREET.subject, Greeting, version=2),
            Contract("orders.created", Greeting),
        ],
    )
    async with merchant_stream(nats_settings):
        found = await ill(service, on_nats(nats_settings))
    assert "Greeting version 2 (hello-service)" in found["contract-disputed"].what
    assert "no stream holds 'orders.created'" in found["contract-stream"].what


async def test_two_services_whose_streams_take_one_subject_are_told(
    nats_settings: NatsSettings,
) -> None:
    one = hello_service()
    other = Service(
        "other-service",
        publishes=[Contract("evt.merchant.gone", Greeting)],
        streams=[StreamDefinition("GONE", ("evt.merchant.>",))],
    )
    settings = on_nats(nats_settings)
    found = await examine([one, other], settings={each.name: settings for each in (one, other)})
    (told,) = [each for each in found if each.code == "contract-stream"]
    assert told.about == "hello-service and other-service"
    assert "GONE takes evt.merchant.>" in told.what


async def test_an_external_stream_is_looked_at_and_not_judged_by_what_is_declared(
    nats_settings: NatsSettings,
) -> None:
    contract = Contract("orders.created", Greeting, stream="ORDERS", codec=JSON)
    service = Service("view-service", publishes=[contract])
    missing = (await ill(service, on_nats(nats_settings)))["stream-missing"]
    assert "somebody else looks after it" in missing.what
    async with Bus(nats_settings, name="tests") as bus:
        await bus.js.add_stream(StreamConfig(name="ORDERS", subjects=["orders.>"], max_msgs=10))
        found = await ill(service, on_nats(nats_settings))
    assert not {"stream-limits", "stream-subjects", "stream-drift"} & found.keys()


def test_every_code_is_in_the_documentation_with_its_reason() -> None:
    page = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text(encoding="utf-8")
    table = page.partition("## Codes")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+?) \|", table, re.MULTILINE))
    assert rows == CODES


def test_durations_are_told_in_one_unit() -> None:
    told = [duration(s) for s in (1, 60, 90, 7200, 7 * DAY, 3600)]
    assert told == ["1 s", "1 min", "90 s", "2 h", "7 d", "1 h"]
