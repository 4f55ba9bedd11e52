import asyncio
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from shared.dev import NatsServer, ProcessError


async def connect(server: NatsServer) -> Client:
    return await nats.connect(server.url, allow_reconnect=False, connect_timeout=60)


async def message_count(server: NatsServer) -> int:
    client = await connect(server)
    try:
        return (await client.jetstream().stream_info("THINGS")).state.messages
    finally:
        await client.close()


async def publish(server: NatsServer) -> None:
    client = await connect(server)
    try:
        jetstream = client.jetstream()
        await jetstream.add_stream(name="THINGS", subjects=["things.>"])
        await jetstream.publish("things.one", b"1")
    finally:
        await client.close()


async def test_a_killed_server_comes_back_at_its_address_with_its_data(
    own_nats_server: NatsServer,
) -> None:
    await publish(own_nats_server)
    url, pid = own_nats_server.url, own_nats_server.pid

    await own_nats_server.kill()
    assert own_nats_server.returncode == -9
    await own_nats_server.restart()

    assert own_nats_server.url == url
    assert own_nats_server.pid != pid
    assert await message_count(own_nats_server) == 1


async def test_a_paused_server_is_silent_and_goes_on_after_resume(
    own_nats_server: NatsServer,
) -> None:
    client = await connect(own_nats_server)
    try:
        await own_nats_server.pause()
        with pytest.raises(TimeoutError):
            await client.flush(timeout=1)
        await own_nats_server.resume()
    finally:
        await client.close()
    await publish(own_nats_server)
    assert await message_count(own_nats_server) == 1


async def test_a_paused_server_can_be_stopped() -> None:
    server = NatsServer()
    await server.start()
    await server.pause()
    await server.stop()
    assert not server.running


async def test_two_servers_run_side_by_side() -> None:
    async with NatsServer() as one, NatsServer() as other:
        await publish(one)
        await publish(other)
        assert one.port != other.port
        assert await message_count(one) == await message_count(other) == 1


async def test_a_given_folder_is_kept_and_a_temporary_one_is_not(tmp_path: Path) -> None:
    async with NatsServer(data_dir=tmp_path / "kept") as server:
        await publish(server)
    async with NatsServer(data_dir=tmp_path / "kept") as server:
        assert await message_count(server) == 1
    async with NatsServer() as server:
        folder = server.data_dir
    assert not folder.exists()


async def test_start_and_stop_may_be_called_twice() -> None:
    server = NatsServer()
    await server.start()
    pid = server.pid
    await server.start()
    assert server.pid == pid
    await server.stop()
    await server.stop()
    await server.kill()
    assert not server.running


async def test_the_configuration_can_be_overridden() -> None:
    async with NatsServer(
        jetstream={"sync_interval": "always"}, config={"max_payload": 2048}
    ) as server:
        client = await connect(server)
        assert client.max_payload == 2048
        await client.close()


async def test_a_wrong_configuration_is_told_with_the_words_of_the_log() -> None:
    server = NatsServer(config={"no_such_setting": True})
    with pytest.raises(ProcessError, match="no_such_setting"):
        await server.start()
    assert not server.running


async def test_a_port_in_use_is_refused_and_a_port_of_our_choice_is_changed(
    own_nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ProcessError, match="in use"):
        await NatsServer(port=own_nats_server.port).start()

    ports = iter([own_nats_server.port, own_nats_server.port, own_nats_server.port - 1])
    monkeypatch.setattr("shared.dev.server.free_port", lambda: next(ports))
    async with NatsServer() as server:
        assert server.port == own_nats_server.port - 1


def test_one_loop_may_start_it_and_another_stop_it() -> None:
    server = NatsServer()
    asyncio.run(server.start())
    asyncio.run(publish(server))
    asyncio.run(server.stop())
    assert not server.running


async def test_a_cancelled_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: NatsServer) -> bool:
        return False

    monkeypatch.setattr(NatsServer, "_ready", never)
    server = NatsServer()
    start = asyncio.create_task(server.start())
    while not server.running:
        await asyncio.sleep(0.01)
    folder = server.data_dir
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not server.running
    assert not folder.exists()
