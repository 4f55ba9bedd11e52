"""Each fault does what it says to a real server, and is over when it is left."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import nats
import pytest
from nats.js.api import ConsumerConfig
from nats.js.errors import APIError

from shared.testing import NatsFilter, NatsFrame, NatsProxy, faults
from tests.dev.probes import rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from nats.aio.client import Client

    from shared.dev import NatsServer, PostgresServer


@pytest.fixture
async def proxy(nats_server: NatsServer) -> AsyncIterator[NatsProxy]:
    async with NatsProxy(nats_server) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: NatsProxy, nats_settings: object) -> AsyncIterator[Client]:
    client = await connected(proxy.url)
    await client.jetstream().add_stream(name="T", subjects=["t.>"])
    yield client
    await client.close()


async def connected(url: str) -> Client:
    async def quiet(_: Exception) -> None:
        pass

    return await nats.connect(
        url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=quiet
    )


async def publish(client: Client, number: int, *, timeout: float = 30) -> bool:
    """Publish with an id, under which it is stored once; whether it was there already."""
    ack = await client.jetstream().publish(
        "t.x", b"%d" % number, headers={"Nats-Msg-Id": str(number)}, timeout=timeout
    )
    return bool(ack.duplicate)


async def received(client: Client, count: int, *, ack_wait: float = 300) -> list[int]:
    """Fetch so many deliveries and acknowledge each."""
    jetstream = client.jetstream()
    options = ConsumerConfig(ack_wait=ack_wait)
    puller = await jetstream.pull_subscribe("t.>", "reader", config=options)
    found: list[int] = []
    async with asyncio.timeout(120):
        while len(found) < count:
            try:
                messages = await puller.fetch(count - len(found), timeout=0.5)
            except TimeoutError:
                continue
            for message in messages:
                found.append(int(message.data))
                await message.ack()
    await client.flush()
    return found


async def test_a_proxy_without_rules_passes_everything_whole(client: Client) -> None:
    body = bytes(range(256)) * 1000
    await client.jetstream().publish("t.big", body, headers={"A": "b", "Empty": "x"})
    message = await client.jetstream().get_msg("T", subject="t.big")
    assert message.data == body
    assert message.headers == {"A": "b", "Empty": "x"}


async def test_a_lost_ack_brings_the_message_again(client: Client, proxy: NatsProxy) -> None:
    await publish(client, 1)
    async with faults.lost_acks(proxy):
        assert await received(client, 2, ack_wait=0.3) == [1, 1]
    assert await received(client, 1, ack_wait=0.3) == [1]
    async with asyncio.timeout(120):
        while (await client.jetstream().consumer_info("T", "reader")).num_ack_pending:
            await asyncio.sleep(0.01)


async def test_a_lost_publish_ack_hides_what_is_stored(client: Client, proxy: NatsProxy) -> None:
    async with faults.lost_publish_acks(proxy):
        with pytest.raises(TimeoutError):
            await publish(client, 1, timeout=0.3)
    assert await publish(client, 1)
    assert (await client.jetstream().stream_info("T")).state.messages == 1


async def test_a_publish_said_twice_arrives_twice(client: Client, proxy: NatsProxy) -> None:
    seen: list[NatsFrame] = []

    def note(frame: NatsFrame, send: Callable[[NatsFrame], None]) -> None:
        seen.append(frame)
        send(frame)

    proxy.rules.append(note)
    async with faults.doubled_publishes(proxy):
        await publish(client, 1)
    await client.flush()
    acks = [frame.payload for frame in seen if frame.is_publish_ack]
    assert len(acks) == 2
    assert b'"duplicate": true' in acks[1].replace(b'":', b'": ').replace(b":  ", b": ")
    assert (await client.jetstream().stream_info("T")).state.messages == 1


async def test_a_delivery_comes_twice(client: Client, proxy: NatsProxy) -> None:
    await publish(client, 1)
    async with faults.doubled_deliveries(proxy):
        assert await received(client, 2) == [1, 1]


async def test_deliveries_come_in_another_order(
    client: Client, proxy: NatsProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "_HELD_SECONDS", 300)
    for n in range(6):
        await publish(client, n)
    async with faults.reordered_deliveries(proxy, share=1):
        found = await received(client, 6)
    assert found == [1, 0, 3, 2, 5, 4]


async def test_a_delayed_delivery_comes(client: Client, proxy: NatsProxy) -> None:
    await publish(client, 1)
    async with faults.delayed_deliveries(proxy, seconds=0.1):
        assert await received(client, 1) == [1]


async def test_half_of_them(client: Client, proxy: NatsProxy) -> None:
    import random

    async with faults.lost_publish_acks(proxy, share=0.5, chance=random.Random(3)):
        lost = Counter[bool]()
        for n in range(12):
            try:
                await publish(client, n, timeout=1)
                lost[False] += 1
            except TimeoutError:
                lost[True] += 1
    assert lost[True] > 1
    assert lost[False] > 1


async def test_a_cut_connection_comes_back(client: Client, proxy: NatsProxy) -> None:
    async with faults.cut(proxy):
        while client.is_connected:
            await asyncio.sleep(0.01)
    await publish_when_back(client)


async def publish_when_back(client: Client) -> None:
    async with asyncio.timeout(120):
        while True:
            try:
                await publish(client, 99, timeout=1)
            except (nats.errors.Error, APIError, TimeoutError, OSError):
                await asyncio.sleep(0.05)
            else:
                return


async def test_silence_is_told_to_nobody(client: Client, proxy: NatsProxy) -> None:
    async with faults.silent(proxy):
        with pytest.raises(TimeoutError):
            await publish(client, 1, timeout=0.3)
        assert client.is_connected
    await publish_when_back(client)


async def test_a_slow_connection_is_slow(client: Client, proxy: NatsProxy) -> None:
    async with faults.slow(proxy, delay_seconds=0.2):
        with pytest.raises(TimeoutError):
            await publish(client, 1, timeout=0.3)
    await publish_when_back(client)


async def test_a_full_stream_refuses_and_then_takes_again(
    client: Client, nats_server: NatsServer
) -> None:
    await publish(client, 1)
    async with faults.full_stream(nats_server, "T"):
        with pytest.raises(APIError):
            await publish(client, 2)
    assert not await publish(client, 2)
    config = (await client.jetstream().stream_info("T")).config
    assert config.max_bytes == -1


async def test_a_full_disk_refuses_and_loses_nothing(own_nats_server: NatsServer) -> None:
    client = await connected(own_nats_server.url)
    await client.jetstream().add_stream(name="T", subjects=["t.>"])
    await publish(client, 1)
    async with faults.full_disk(own_nats_server):
        async with asyncio.timeout(120):
            while not client.is_connected:
                await asyncio.sleep(0.05)
        with pytest.raises(APIError):
            await publish(client, 2)
        assert (await client.jetstream().get_msg("T", 1)).data == b"1"
    await publish_when_back(client)
    await client.close()


async def test_servers_come_back_with_their_data(
    own_nats_server: NatsServer, own_postgres_server: PostgresServer
) -> None:
    await rows(own_postgres_server, "CREATE TABLE t AS SELECT 1 AS n")
    for fault in (
        faults.killed(own_postgres_server),
        faults.restarted(own_postgres_server),
        faults.database_down(own_postgres_server),
    ):
        async with fault:
            assert not own_postgres_server.running
        assert await rows(own_postgres_server, "SELECT n FROM t") == [(1,)]
    for fault in (faults.killed(own_nats_server), faults.restarted(own_nats_server)):
        async with fault:
            assert not own_nats_server.running
        assert own_nats_server.running
    async with faults.frozen(own_nats_server) as frozen:
        # The system still lets it in, and nobody answers.
        reader, writer = await asyncio.open_connection(own_nats_server.host, own_nats_server.port)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.2)
        writer.close()
    client = await connected(own_nats_server.url)
    await client.close()
    assert str(frozen) == "SIGSTOP nats"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_frames_are_cut_the_same_however_the_bytes_come(size: int) -> None:
    wire = (
        b'INFO {"a":1}\r\nPING\r\n'
        b"PUB a.b 3\r\nabc\r\n"
        b"PUB $JS.ACK.S.C.1.2.3.4.5 4\r\n+ACK\r\n"
        b"PUB a.b _INBOX.x 0\r\n\r\n"
        b"HPUB a.b _INBOX.y 28 33\r\nNATS/1.0\r\nNats-Msg-Id: 1\r\n\r\nhello\r\n"
        b"MSG a 1 7\r\na\r\nb\r\nc\r\n"
        b"HMSG a 1 $JS.ACK.S.C.1.2.3.4.5 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
        b'MSG _INBOX.y 2 22\r\n{"stream":"S","seq":1}\r\n'
    )
    frames: list[NatsFrame] = []

    def note(frame: NatsFrame, send: Any) -> None:
        frames.append(frame)
        send(frame)

    passed = bytearray()
    cutter = NatsFilter(note)
    for start in range(0, len(wire), size):
        cutter.feed(wire[start : start + size], passed.extend)
    assert bytes(passed) == wire
    assert [frame.verb for frame in frames] == [
        *("INFO", "PING", "PUB", "PUB", "PUB", "HPUB", "MSG", "HMSG", "MSG"),
    ]
    assert [frame.payload for frame in frames[2:]] == [
        *(b"abc", b"+ACK", b"", b"hello", b"a\r\nb\r\nc", b"hi", b'{"stream":"S","seq":1}'),
    ]
    assert [frame.reply for frame in frames[4:6]] == ["_INBOX.x", "_INBOX.y"]
    assert [frame.is_ack for frame in frames].count(True) == 1
    assert frames[5].is_publish
    assert frames[7].is_delivery
    assert frames[8].is_publish_ack
