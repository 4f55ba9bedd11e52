"""What those who publish, read and look after streams need of the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.client import Client
    from nats.js import JetStreamContext
    from nats.js.api import StreamConfig

    from shared.config import NatsSettings


class Connection(Protocol):
    """A connection to NATS that comes back by itself; `shared.messaging.Bus` is the one there is.

    The parts of this package take one rather than the bus, which holds some of them.
    """

    settings: NatsSettings
    name: str

    @property
    def client(self) -> Client:
        """The client in use now; `MessageBusError` if the connection was never opened."""
        ...

    @property
    def js(self) -> JetStreamContext:
        """The JetStream context of `client`."""
        ...

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it is closed, and will not come back by itself."""
        ...

    def on_connection(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called after each reconnection; return what stops that."""
        ...

    async def suspect(self) -> None:
        """Tell that the server does not answer: if it indeed does not, take another connection."""
        ...

    async def ensure_stream_config(self, config: StreamConfig) -> None:
        """Create the stream, or widen the one there is."""
        ...
