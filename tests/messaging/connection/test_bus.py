"""The connection: opening, credentials, coming back, closing."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from typing import TYPE_CHECKING

import pytest
from nats.aio.client import Client

from shared.config import NatsSettings
from shared.dev import NatsServer
from shared.errors import MessageBusError
from shared.messaging import Bus, Delivery
from shared.messaging.connection.client import LeanClient, _plainly
from shared.testing import eventually
from tests.messaging.conftest import STREAM, Subscribers, message

if TYPE_CHECKING:
    from pathlib import Path


async def test_ping_tells_that_jetstream_is_there(bus: Bus) -> None:
    answer = await bus.ping()
    assert answer["streams"] == 1
    assert bus.connected


async def test_nobody_there_is_a_retryable_error_in_the_time_allowed() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{taken.getsockname()[1]}"
        bus = Bus(NatsSettings(servers=(url,), connect_timeout_seconds=0.3), name="tests")
        with pytest.raises(MessageBusError, match=f"connect to {url} failed") as caught:
            await bus.open()
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, OSError)
    assert not bus.connected
    await bus.close()


async def test_an_address_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(MessageBusError, match="connect"):
        await Bus(NatsSettings(servers=("nats://:port",)), name="tests").open()


async def test_one_of_several_servers_is_enough(nats_server: NatsServer) -> None:
    servers = ("nats://127.0.0.1:9", nats_server.url)
    async with Bus(NatsSettings(servers=servers), name="tests") as bus:
        assert bus.connected


async def test_closing_twice_or_unopened_is_harmless(nats_settings: NatsSettings) -> None:
    bus = Bus(nats_settings, name="tests")
    await bus.close()
    async with bus:
        assert bus.connected
    assert not bus.connected
    await bus.close()
    with pytest.raises(MessageBusError):
        await bus.ping()


async def test_before_opening_there_is_no_client(nats_settings: NatsSettings) -> None:
    with pytest.raises(MessageBusError, match="not open"):
        _ = Bus(nats_settings, name="tests").client


async def test_closing_works_while_a_handler_is_blocked(
    own_nats_server: NatsServer, own_bus: Bus, own_subscribers: Subscribers
) -> None:
    begun = asyncio.Event()

    async def blocked(_: Delivery) -> None:
        begun.set()
        await asyncio.Event().wait()

    own_subscribers.start(own_bus, blocked)
    await own_bus.publisher.publish(message(1))
    await begun.wait()
    await own_bus.close()
    assert not own_bus.connected


async def test_it_comes_back_after_the_server_did(
    own_bus: Bus, own_nats_server: NatsServer
) -> None:
    heard: list[str] = []
    own_bus.on_connection(lambda: heard.append("again"))
    await own_nats_server.kill()
    await eventually(lambda: not own_bus.connected)
    with pytest.raises(MessageBusError):
        await own_bus.ping()
    await own_nats_server.restart()
    await eventually(lambda: own_bus.connected and heard)
    assert (await own_bus.ping())["streams"] == 1


async def test_a_client_that_gave_up_is_replaced(bus: Bus) -> None:
    """nats-py closes for good on a protocol error; here the server refuses a subject."""
    given_up = bus.client
    given_up._skip_subject_validation = True
    await given_up.subscribe("not..valid")
    await eventually(lambda: bus.client is not given_up and bus.connected)
    assert (await bus.publisher.publish(message(1))).stream == "TESTS"


@pytest.mark.parametrize(
    "shown", [{"user": "glam", "password": "s3cret"}, {"token": "s3cret"}], ids=["user", "token"]
)
async def test_wrong_credentials_are_refused_at_once(shown: dict[str, str]) -> None:
    async with NatsServer(config={"authorization": shown}) as server:
        right = NatsSettings.model_validate({"servers": (server.url,), **shown})
        async with Bus(right, name="tests") as bus:
            await bus.ping()
        secret = "token" if "token" in shown else "password"
        wrong = NatsSettings.model_validate({"servers": (server.url,), **shown, secret: "guessed"})
        with pytest.raises(MessageBusError, match="Authorization") as caught:
            await Bus(wrong, name="tests").open()
    assert not caught.value.retryable
    assert "guessed" not in str(caught.value)


async def test_tls_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    openssl = await asyncio.create_subprocess_exec(
        *[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "1",
        ],
        *("-subj", "/CN=glam", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(certificate)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await openssl.wait() == 0
    files = {"cert_file": str(certificate), "key_file": str(key), "ca_file": str(certificate)}
    async with NatsServer(config={"tls": {**files, "verify": True}}) as server:
        settings = NatsSettings(
            servers=(server.url.replace("nats://", "tls://"),),
            tls_ca_file=certificate,
            tls_cert_file=certificate,
            tls_key_file=key,
        )
        async with Bus(settings, name="tests") as bus:
            await bus.ping()


async def test_a_creds_file_without_nkeys_says_what_to_install(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    settings = NatsSettings(servers=(nats_server.url,), creds_file=tmp_path / "user.creds")
    with pytest.raises(ImportError, match="pip install"):
        await Bus(settings, name="tests").open()


async def test_tls_files_that_cannot_be_read_are_a_clear_error(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    settings = NatsSettings(servers=(nats_server.url,), tls_ca_file=tmp_path / "missing.pem")
    with pytest.raises(MessageBusError, match="TLS files") as caught:
        await Bus(settings, name="tests").open()
    assert not caught.value.retryable


async def test_a_stream_can_be_ensured_again_and_again(bus: Bus) -> None:
    await bus.ensure_stream(STREAM)
    await bus.ensure_stream(STREAM)


def test_headers_are_read_as_nats_py_reads_them() -> None:
    parts = [*b"aB-:: \t\x00\x0b\x1c\x1f\x85\r\n1", "é".encode(), b"\r\n", b"Nats-Msg-Id: 1\r\n"]
    pieces = [part if isinstance(part, bytes) else bytes([part]) for part in parts]
    pieces += [b"\r\n\r\n", b"\r\na: ", b"\r\nB: ", b"a: 1"]  # what is read at once
    chance = random.Random(1)
    for _ in range(3_000):
        raw = b"".join(chance.choices(pieces, k=chance.randrange(16)))
        for text in (raw, b"a: " + raw, b"a: " + raw + b"\r\n\r\n"):
            assert LeanClient._parse_header_lines(text) == Client._parse_header_lines(text), text
    assert _plainly(b"a: 1\r\nB: 2\r\n\r\n") == {"a": "1", "B": "2"}  # both were seen by now
