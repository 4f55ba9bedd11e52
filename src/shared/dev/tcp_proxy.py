"""A TCP proxy that does to connections what networks do to them."""
# ruff: noqa: SLF001 - the classes of this file are one part

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol, Self, TypeAlias

from shared.dev.process import ProcessError
from shared.dev.server import free_port

_CHUNK_BYTES = 64 * 1024
# What waits in the proxy; beyond it the sender feels the back-pressure.
_WAITING_CHUNKS = 256
_FULL_SECONDS = 0.001
_PORT_TRIES = 20

Send: TypeAlias = Callable[[bytes], None]


class Filter(Protocol):
    """Sees all bytes of one direction of one connection, and decides what goes on.

    `feed` gets them as they come, in pieces of any size, and calls `send` with what is to go on:
    at once, later from the same event loop, twice, or never.
    """

    def feed(self, chunk: bytes, send: Send) -> None:
        """Take the next bytes."""
        ...


class Lane:
    """One direction, of one connection or of all: what is wrong with it now.

    What holds for all connections (`TcpProxy.to_server`, `TcpProxy.to_client`) adds to what holds
    for one of them (`ProxiedConnection.to_server`, ...), and applies to new ones too. `heal` takes
    back everything but a half close, which cannot be taken back.
    """

    def __init__(self, of_all: "Lane | None" = None) -> None:
        self._of_all = of_all
        self._flowing = asyncio.Event()
        self._filter: Callable[[], Filter] | None = None
        self._closed = asyncio.Event()
        self.heal()

    def pause(self) -> None:
        """Hold what comes; the sender feels it once the buffers are full."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let go on what `pause` held."""
        self._flowing.set()

    def drop(self) -> None:
        """Read what comes and throw it away: both ends think that all is well."""
        self._dropping = True

    def delay(self, seconds: float) -> None:
        """Let every byte arrive so much later, in order; 0 ends it."""
        self._delay_seconds = seconds

    def throttle(self, bytes_per_second: float) -> None:
        """Let no more than so much through; `inf` ends it.

        Raises:
            ValueError: it is not above 0; `pause` lets nothing through.
        """
        if bytes_per_second <= 0:
            raise ValueError("bytes_per_second must be above 0; pause() lets nothing through")
        self._bytes_per_second = bytes_per_second

    def filter(self, make: Callable[[], Filter] | None) -> None:
        """Send what comes through a filter of its own for each connection; None ends it.

        A filter takes hold of a connection that is open already with the next bytes it reads, which
        may be in the middle of a message: a filter that reads messages wants new connections, or to
        be set from the start and told later what to do.
        """
        self._filter = make

    def half_close(self) -> None:
        """End this direction (FIN) of every open connection; the other goes on."""
        self._closed.set()
        if self._of_all is None:
            self._closed = asyncio.Event()

    def heal(self) -> None:
        """Take back pause, drop, delay, throttle and filter."""
        self._flowing.set()
        self._dropping = False
        self._delay_seconds = 0.0
        self._bytes_per_second = float("inf")
        self._filter = None

    def _lanes(self) -> "Iterator[Lane]":
        yield self
        if self._of_all is not None:
            yield self._of_all

    async def _until_flowing(self) -> None:
        while not all(lane._flowing.is_set() for lane in self._lanes()):
            for lane in self._lanes():
                await lane._flowing.wait()

    def _made_filter(self) -> Callable[[], Filter] | None:
        return next((lane._filter for lane in self._lanes() if lane._filter is not None), None)


class ProxiedConnection:
    """One connection through a proxy: from a client, to the server."""

    def __init__(
        self,
        proxy: "TcpProxy",
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.to_server = Lane(proxy.to_server)
        self.to_client = Lane(proxy.to_client)
        self._client, self._server = client, server

    def cut(self) -> None:
        """Reset both ends (RST): what was on its way is gone."""
        for _, writer in (self._client, self._server):
            _reset(writer)

    def drop(self) -> None:
        """Throw away what comes from either side; nobody is told."""
        self.to_server.drop()
        self.to_client.drop()

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_Pump(self.to_server, self._client[0], self._server[1]).run())
            tasks.create_task(_Pump(self.to_client, self._server[0], self._client[1]).run())


class TcpProxy:
    """Stands before a server on 127.0.0.1 and misbehaves when told to.

        async with TcpProxy(nats.host, nats.port) as proxy:
            settings = NatsSettings(servers=(f"nats://{proxy.address}",))
            proxy.cut()               # every connection is reset
            proxy.to_client.delay(1)  # answers come a second late
            proxy.refuse()            # and nobody comes in any more
            proxy.heal()

    Faults are set for all connections, present and new, or for one of `connections`; each in one
    direction: `to_server`, `to_client`. The server may be away and come back meanwhile: a client
    that connects while it is away is cut off at once. It lives in the event loop that entered it.

    Args:
        host: where the server is.
        port: the same; may be changed later, and is then that of new connections.
        listen_port: where clients come; a free one by default.
    """

    def __init__(self, host: str, port: int, *, listen_port: int | None = None) -> None:
        self.server_host = host
        self.server_port = port
        self.host = "127.0.0.1"
        self.to_server = Lane()
        self.to_client = Lane()
        self._port = listen_port
        self._listener: asyncio.Server | None = None
        self._connections: dict[ProxiedConnection, asyncio.Task[None]] = {}
        self._coming: set[asyncio.Task[None]] = set()
        self._open = False
        self._refusing = False

    @property
    def port(self) -> int:
        """The port that clients connect to.

        Raises:
            ProcessError: none was given and the proxy was never started.
        """
        if self._port is None:
            raise ProcessError("the proxy was never started")
        return self._port

    @property
    def address(self) -> str:
        """`127.0.0.1:<port>`, for clients."""
        return f"{self.host}:{self.port}"

    @property
    def connections(self) -> tuple[ProxiedConnection, ...]:
        """The open connections, oldest first."""
        return tuple(self._connections)

    async def start(self) -> None:
        """Listen; a second call does nothing.

        Raises:
            OSError: the given port is taken.
        """
        if self._open:
            return
        for attempt in range(1, _PORT_TRIES + 1):
            port = self._port or free_port()
            try:
                self._listener = await asyncio.start_server(self._accept, self.host, port)
            except OSError:
                if self._port is not None or attempt == _PORT_TRIES:
                    raise
                continue
            self._port = port
            break
        self._open = True

    async def stop(self) -> None:
        """Reset every connection and listen no more; a second call does nothing."""
        self._open = False
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.cut()
        tasks = [*self._coming, *self._connections.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def cut(self) -> None:
        """Reset every open connection (RST); new ones are let in, see `refuse`."""
        for connection in self.connections:
            connection.cut()

    def drop(self) -> None:
        """Throw away all bytes of all connections, present and new; nobody is told."""
        self.to_server.drop()
        self.to_client.drop()

    def pause(self) -> None:
        """Hold all bytes of all connections; see `Lane.pause`."""
        self.to_server.pause()
        self.to_client.pause()

    def resume(self) -> None:
        """Let go on what `pause` held."""
        self.to_server.resume()
        self.to_client.resume()

    def refuse(self) -> None:
        """Reset new connections from now on; open ones go on."""
        self._refusing = True

    def accept(self) -> None:
        """Let new connections in again."""
        self._refusing = False

    def heal(self) -> None:
        """Take back all faults of all connections, and let new ones in.

        Connections on which bytes were dropped are reset: their streams have a hole.
        """
        for connection in self.connections:
            dropped = any(
                lane._dropping
                for own in (connection.to_server, connection.to_client)
                for lane in own._lanes()
            )
            connection.to_server.heal()
            connection.to_client.heal()
            if dropped:
                connection.cut()
        self.to_server.heal()
        self.to_client.heal()
        self.accept()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - streams call this in a task
        self._coming.add(task)
        connection: ProxiedConnection | None = None
        server: asyncio.StreamWriter | None = None
        try:
            if self._refusing or not self._open:
                return
            their_reader, server = await asyncio.open_connection(self.server_host, self.server_port)
            connection = ProxiedConnection(self, (reader, writer), (their_reader, server))
            self._connections[connection] = task
            await connection._serve()
            writer.close()
            server.close()
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # either end is gone, or the proxy is: so is the connection
        finally:
            self._coming.discard(task)
            if connection is not None:
                self._connections.pop(connection, None)
            for end in (writer, server):
                if end is not None and not end.is_closing():
                    _reset(end)


class _Pump:
    """Carries the bytes of one direction, with what is wrong with it."""

    def __init__(
        self, lane: Lane, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._lane = lane
        self._reader = reader
        self._writer = writer
        self._waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._made: Callable[[], Filter] | None = None
        self._filter: Filter | None = None

    async def run(self) -> None:
        """Carry until the sender ends its direction, which is passed on, or either end is gone."""
        async with asyncio.TaskGroup() as tasks:
            closing = [
                tasks.create_task(self._half_close(lane._closed)) for lane in self._lane._lanes()
            ]
            writing = tasks.create_task(self._write())
            await self._read()
            self._waiting.put_nowait((0.0, b""))
            await writing
            for task in closing:
                task.cancel()

    async def _read(self) -> None:
        lane = self._lane
        while True:
            await lane._until_flowing()
            while self._waiting.qsize() >= _WAITING_CHUNKS:  # noqa: ASYNC110 - rare
                await asyncio.sleep(_FULL_SECONDS)
            chunk = await self._reader.read(_CHUNK_BYTES)
            if not chunk:
                return
            if any(each._dropping for each in lane._lanes()):
                continue
            make = lane._made_filter()
            if make != self._made:
                self._made, self._filter = make, make() if make is not None else None
            if self._filter is None:
                self._send(chunk)
            else:
                self._filter.feed(chunk, self._send)

    def _send(self, data: bytes) -> None:
        delay = sum(lane._delay_seconds for lane in self._lane._lanes())
        if data:
            self._waiting.put_nowait((_now() + delay if delay else 0.0, data))

    async def _write(self) -> None:
        lane = self._lane
        while True:
            due, data = await self._waiting.get()
            if not data:
                break
            if due:
                await asyncio.sleep(due - _now())
            await lane._until_flowing()
            if self._writer.is_closing():
                return
            rate = min(each._bytes_per_second for each in lane._lanes())
            if rate != float("inf"):
                await asyncio.sleep(len(data) / rate)
            self._writer.write(data)
            await self._writer.drain()
        self._end()

    async def _half_close(self, asked: asyncio.Event) -> None:
        await asked.wait()
        self._end()
        self._lane.drop()

    def _end(self) -> None:
        with suppress(OSError, RuntimeError):
            if self._writer.can_write_eof() and not self._writer.is_closing():
                self._writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN: linger for no time (socket(7), SO_LINGER)."""
    transport = writer.transport
    raw: socket.socket | None = transport.get_extra_info("socket")
    if raw is not None and not transport.is_closing():
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _now() -> float:
    return asyncio.get_running_loop().time()
