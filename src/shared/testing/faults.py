"""Real faults as ordinary parts: each begins when it is entered and is over when it is left.

    async with killed(nats_server):
        ...                          # the server is gone
    ...                              # it is back, with its data

Processes are those of `shared.dev`; what happens to connections and single messages happens in a
`TcpProxy` or `NatsProxy` before the server.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from shared.dev import NatsServer, PostgresServer, Process, TcpProxy
    from shared.testing.nats_frames import NatsFrame, Rule
    from shared.testing.nats_proxy import NatsProxy


# A frame that waits for the next one to pass it does not wait longer.
_HELD_SECONDS = 0.5


@dataclass(slots=True)
class Fault:
    """Something that goes wrong from entering to leaving; it may be entered again.

    `kind` says what, `target` to whom; both are for reports.
    """

    kind: str
    target: str
    make: Callable[[], AbstractAsyncContextManager[None]]
    _begun: AbstractAsyncContextManager[None] | None = field(default=None, repr=False)

    async def __aenter__(self) -> Self:
        self._begun = self.make()
        await self._begun.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._begun is not None:
            await self._begun.__aexit__(kind, error, trace)

    def __str__(self) -> str:
        return f"{self.kind} {self.target}"


# -- processes -------------------------------------------------------------------------------


def killed(process: Process) -> Fault:
    """`kill -9` it with all its children; start it again at the end."""

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        await process.kill()
        try:
            yield
        finally:
            await process.start()

    return Fault("kill -9", process.name, fault)


def restarted(process: Process) -> Fault:
    """Stop it in good order (SIGTERM; PostgreSQL: fast shutdown); start it again at the end."""

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        # `Process.stop`, not `Server.stop`, which would throw the data away.
        from shared.dev import Process  # noqa: PLC0415 - keeps the import light

        await Process.stop(process)
        try:
            yield
        finally:
            await process.start()

    return Fault("restart", process.name, fault)


def frozen(process: Process) -> Fault:
    """SIGSTOP it with all its children: connections stay open and nothing answers; then SIGCONT."""

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        await process.pause()
        try:
            yield
        finally:
            await process.resume()

    return Fault("SIGSTOP", process.name, fault)


def database_down(server: PostgresServer) -> Fault:
    """The database is gone, its sessions with it; at the end it comes back and recovers."""
    fault = killed(server)
    return Fault("database down", server.name, fault.make)


# -- connections -----------------------------------------------------------------------------


def cut(proxy: TcpProxy, *, target: str = "connection") -> Fault:
    """Reset all connections and refuse new ones."""

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        proxy.refuse()
        proxy.cut()
        try:
            yield
        finally:
            proxy.accept()

    return Fault("cut", target, fault)


def silent(proxy: TcpProxy, *, target: str = "connection") -> Fault:
    """Drop every byte both ways without telling anybody; at the end the connections are reset."""

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        proxy.drop()
        try:
            yield
        finally:
            proxy.heal()

    return Fault("silence", target, fault)


def slow(
    proxy: TcpProxy,
    *,
    delay_seconds: float = 0.2,
    bytes_per_second: float = float("inf"),
    target: str = "connection",
) -> Fault:
    """Delay every byte each way, and let only so many through."""

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        for lane in (proxy.to_server, proxy.to_client):
            lane.delay(delay_seconds)
            lane.throttle(bytes_per_second)
        try:
            yield
        finally:
            for lane in (proxy.to_server, proxy.to_client):
                lane.delay(0)
                lane.throttle(float("inf"))

    return Fault("slow", target, fault)


# -- messages --------------------------------------------------------------------------------


def lost_acks(
    proxy: NatsProxy, *, share: float = 1.0, chance: random.Random | None = None
) -> Fault:
    """Consumers' acknowledgements get lost: the server gives the messages out again."""
    return _ruled(proxy, "lost acks", lambda frame: frame.is_ack, _lose, share, chance)


def lost_publish_acks(
    proxy: NatsProxy, *, share: float = 1.0, chance: random.Random | None = None
) -> Fault:
    """The server's acknowledgement of a stored message gets lost: publishers send it again."""
    return _ruled(
        proxy, "lost publish acks", lambda frame: frame.is_publish_ack, _lose, share, chance
    )


def doubled_publishes(
    proxy: NatsProxy, *, share: float = 1.0, chance: random.Random | None = None
) -> Fault:
    """Messages with a `Nats-Msg-Id` reach the server twice."""
    return _ruled(
        proxy, "doubled publishes", lambda frame: frame.is_publish, _double, share, chance
    )


def doubled_deliveries(
    proxy: NatsProxy, *, share: float = 1.0, chance: random.Random | None = None
) -> Fault:
    """Messages reach the consumer twice."""
    return _ruled(
        proxy, "doubled deliveries", lambda frame: frame.is_delivery, _double, share, chance
    )


def delayed_deliveries(
    proxy: NatsProxy,
    *,
    seconds: float = 0.5,
    share: float = 1.0,
    chance: random.Random | None = None,
) -> Fault:
    """Messages reach the consumer late, and later ones before them."""

    def delay(frame: NatsFrame, send: Callable[[NatsFrame], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, send, frame)

    return _ruled(
        proxy, "delayed deliveries", lambda frame: frame.is_delivery, delay, share, chance
    )


def reordered_deliveries(
    proxy: NatsProxy, *, share: float = 0.5, chance: random.Random | None = None
) -> Fault:
    """Messages reach the consumer after the ones behind them."""
    return _ruled(
        proxy, "reordered deliveries", lambda frame: frame.is_delivery, _Swap(), share, chance
    )


def _ruled(
    proxy: NatsProxy,
    kind: str,
    concerns: Callable[[NatsFrame], bool],
    rule: Rule,
    share: float,
    chance: random.Random | None,
) -> Fault:
    dice = chance or random.Random()  # noqa: S311 - no secret

    def chosen(frame: NatsFrame, send: Callable[[NatsFrame], None]) -> None:
        if concerns(frame) and dice.random() < share:
            rule(frame, send)
        else:
            send(frame)

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        proxy.rules.append(chosen)
        try:
            yield
        finally:
            if chosen in proxy.rules:
                proxy.rules.remove(chosen)

    return Fault(kind, "messages", fault)


def _lose(frame: NatsFrame, send: Callable[[NatsFrame], None]) -> None:
    del frame, send


def _double(frame: NatsFrame, send: Callable[[NatsFrame], None]) -> None:
    send(frame)
    send(frame)


class _Swap:
    """Holds a frame until the next one has passed it, or for half a second."""

    def __init__(self) -> None:
        self._held: Callable[[], None] | None = None

    def __call__(self, frame: NatsFrame, send: Callable[[NatsFrame], None]) -> None:
        held, self._held = self._held, None
        if held is not None:
            send(frame)
            held()
            return
        sent = False

        def release() -> None:
            nonlocal sent
            if not sent:
                sent = True
                send(frame)

        self._held = release
        asyncio.get_running_loop().call_later(_HELD_SECONDS, release)


# -- disks -----------------------------------------------------------------------------------


def full_stream(server: NatsServer, stream: str) -> Fault:
    """The stream takes no more than it holds: publishers are refused (`discard: new`).

    Not for streams with message schedules, which the server does not let refuse; see `full_disk`.
    """

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        import nats  # noqa: PLC0415 - keeps the import light
        from nats.js.api import DiscardPolicy  # noqa: PLC0415

        client = await nats.connect(server.url, allow_reconnect=False)
        try:
            info = await client.jetstream().stream_info(stream)
            config = info.config
            before = config.max_bytes, config.discard
            config.max_bytes, config.discard = max(info.state.bytes, 1), DiscardPolicy.NEW
            await client.jetstream().update_stream(config)
        finally:
            await client.close()
        try:
            yield
        finally:
            client = await nats.connect(server.url, allow_reconnect=False)
            try:
                config = (await client.jetstream().stream_info(stream)).config
                config.max_bytes, config.discard = before
                await client.jetstream().update_stream(config)
            finally:
                await client.close()

    return Fault("full stream", stream, fault)


def full_disk(server: NatsServer) -> Fault:
    """The server comes back with a quota of one byte: it serves what it has and stores no more.

    A quota is read at the start only, so this restarts the server at the beginning and the end.
    """

    @asynccontextmanager
    async def fault() -> AsyncIterator[None]:
        before = dict(server.jetstream)
        server.jetstream["max_file_store"] = 1
        try:
            await server.restart()
            yield
        finally:
            server.jetstream = before
            await server.restart()

    return Fault("full disk", server.name, fault)
