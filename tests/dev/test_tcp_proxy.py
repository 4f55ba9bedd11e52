import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from shared.dev import ProcessError, TcpProxy
from shared.dev.tcp_proxy import Send

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that says back what it hears, and what it heard."""

    def __init__(self) -> None:
        self.heard = b""
        self.ended = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                self.heard += chunk
                writer.write(chunk)
                await writer.drain()
            self.ended.set()
            writer.write(b"bye")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    yield echo
    server.close()


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[TcpProxy]:
    async with TcpProxy("127.0.0.1", echo.port) as proxy:
        yield proxy


@asynccontextmanager
async def connected(proxy: TcpProxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def said(streams: Streams, words: bytes) -> bytes:
    reader, writer = streams
    writer.write(words)
    return await asyncio.wait_for(reader.readexactly(len(words)), 120)


async def silent(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), 0.1)
    except TimeoutError:
        return True
    return False


async def test_everything_arrives_unchanged_and_the_end_is_passed_on(proxy: TcpProxy) -> None:
    words = bytes(range(256)) * 8192
    async with connected(proxy) as (reader, writer):
        writer.write(words)
        assert await asyncio.wait_for(reader.readexactly(len(words)), 120) == words
        writer.write_eof()
        assert await reader.read() == b"bye"


async def test_a_cut_resets_the_client_and_the_next_connection_works(proxy: TcpProxy) -> None:
    async with connected(proxy) as streams:
        assert await said(streams, b"hello") == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(streams[0].read(), 120)
    async with connected(proxy) as streams:
        assert await said(streams, b"again") == b"again"


async def test_one_connection_is_cut_and_the_other_goes_on(proxy: TcpProxy) -> None:
    async with connected(proxy) as one, connected(proxy) as other:
        await said(one, b"1")
        await said(other, b"2")
        proxy.connections[0].cut()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(one[0].read(), 120)
        assert await said(other, b"3") == b"3"


async def test_what_is_dropped_never_arrives_and_nobody_is_told(
    proxy: TcpProxy, echo: Echo
) -> None:
    async with connected(proxy) as (reader, writer):
        await said((reader, writer), b"before")
        proxy.to_server.drop()
        writer.write(b"lost")
        assert await silent(reader)
        assert echo.heard == b"before"
        assert len(proxy.connections) == 1
        # A stream with a hole is of no use: healing ends it.
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 120)
    async with connected(proxy) as streams:
        assert await said(streams, b"after") == b"after"


async def test_one_direction_only(proxy: TcpProxy, echo: Echo) -> None:
    async with connected(proxy) as (reader, writer):
        await said((reader, writer), b"a")
        proxy.to_client.drop()
        writer.write(b"b")
        assert await silent(reader)
        assert echo.heard == b"ab"


async def test_a_pause_holds_and_loses_nothing(proxy: TcpProxy) -> None:
    async with connected(proxy) as (reader, writer):
        await said((reader, writer), b"a")
        proxy.pause()
        writer.write(b"held")
        assert await silent(reader)
        proxy.resume()
        assert await asyncio.wait_for(reader.readexactly(4), 120) == b"held"


async def test_a_fault_of_all_holds_for_new_connections_too(proxy: TcpProxy) -> None:
    proxy.to_client.pause()
    async with connected(proxy) as (reader, writer):
        writer.write(b"held")
        assert await silent(reader)
        proxy.heal()
        assert await asyncio.wait_for(reader.readexactly(4), 120) == b"held"


async def test_a_delay_keeps_the_order(proxy: TcpProxy) -> None:
    proxy.to_server.delay(0.2)
    async with connected(proxy) as (reader, writer):
        began = asyncio.get_running_loop().time()
        writer.write(b"a")
        await asyncio.sleep(0.01)
        proxy.to_server.delay(0)
        writer.write(b"b")
        assert await asyncio.wait_for(reader.readexactly(2), 120) == b"ab"
        assert asyncio.get_running_loop().time() - began >= 0.19


async def test_a_throttle_slows_down(proxy: TcpProxy) -> None:
    proxy.to_server.throttle(10_000)
    async with connected(proxy) as streams:
        began = asyncio.get_running_loop().time()
        await said(streams, bytes(2_000))
        assert asyncio.get_running_loop().time() - began >= 0.19
    with pytest.raises(ValueError, match="pause"):
        proxy.to_server.throttle(0)


async def test_a_half_close_ends_one_direction(proxy: TcpProxy, echo: Echo) -> None:
    async with connected(proxy) as (reader, writer):
        await said((reader, writer), b"a")
        proxy.to_server.half_close()
        await asyncio.wait_for(echo.ended.wait(), 120)
        assert await asyncio.wait_for(reader.read(), 120) == b"bye"


async def test_who_comes_while_it_refuses_is_reset(proxy: TcpProxy) -> None:
    proxy.refuse()
    with pytest.raises(ConnectionResetError):
        async with connected(proxy) as (reader, _):
            await asyncio.wait_for(reader.readexactly(1), 120)
    proxy.accept()
    async with connected(proxy) as streams:
        assert await said(streams, b"in") == b"in"


async def test_a_server_that_is_away_is_told_as_a_reset() -> None:
    async with TcpProxy("127.0.0.1", 1) as proxy:
        with pytest.raises(ConnectionResetError):
            async with connected(proxy) as (reader, _):
                await asyncio.wait_for(reader.readexactly(1), 120)


class Twice:
    def feed(self, chunk: bytes, send: Send) -> None:
        send(chunk)
        send(chunk)


async def test_a_filter_decides_what_goes_on(proxy: TcpProxy) -> None:
    proxy.to_server.filter(Twice)
    async with connected(proxy) as (reader, writer):
        writer.write(b"ab")
        assert await asyncio.wait_for(reader.readexactly(4), 120) == b"abab"


async def test_stop_ends_all_and_may_be_called_again(echo: Echo) -> None:
    proxy = TcpProxy("127.0.0.1", echo.port)
    with pytest.raises(ProcessError, match="never started"):
        _ = proxy.port
    await proxy.start()
    port = proxy.port
    async with connected(proxy) as streams:
        await said(streams, b"a")
        await proxy.stop()
        await proxy.stop()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(streams[0].read(), 120)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await proxy.start()
    assert proxy.port == port
    await proxy.stop()
