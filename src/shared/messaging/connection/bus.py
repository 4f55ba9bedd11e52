"""The connection to NATS JetStream: one per process, shared by all who publish and subscribe."""

from __future__ import annotations

import asyncio
import importlib
import logging
import ssl
from typing import TYPE_CHECKING, Any, Self

from shared.config import NatsSettings
from shared.errors import MessageBusError, missing_extra
from shared.messaging.connection.client import LeanClient
from shared.messaging.connection.errors import (
    API_TIMEOUT_SECONDS,
    bus_error,
    bus_errors,
    is_refusal,
    reason_of,
)
from shared.messaging.connection.watchdog import Watchdog
from shared.messaging.publisher import Publisher
from shared.messaging.streams.ensure import ensure_stream

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from nats.aio.client import Client
    from nats.js import JetStreamContext
    from nats.js.api import StreamConfig
    from pydantic import SecretStr

    from shared.events.streams import StreamDefinition

_logger = logging.getLogger(__name__)

# nats-py would wait two seconds after a refused connection, at first start as at reconnection.
_RETRY_SECONDS = 0.25

# A server that froze is noticed after three of these (the client's own default: six minutes).
_PING_SECONDS = 20

# Where a client keeps its bus. A weak dictionary would never let go: the bus holds the client.
_BUS = "_glam_bus"


class Bus:
    """A connection that comes back by itself, for as long as it is open.

    Enter it, or call `open`. Whatever cuts the connection afterwards (a restart, a lost network,
    expired credentials), it is taken up again for ever; `connected` tells how it stands now. What
    is published meanwhile fails with a retryable error once its time is up; what is subscribed
    goes on by itself.

    >>> async with Bus(settings, name="till-service") as bus:
    ...     await bus.ensure_stream(StreamDefinition("INVOICE", ("evt.invoice.>",)))
    ...     bus.connected
    True

    Args:
        settings: servers and credentials. User and password, a token, a `creds_file` (JWT and
            nkey) and TLS may be combined as the server asks.
        name: shown in the server's list of connections.
        logger: where changes of the connection are told.
    """

    def __init__(
        self, settings: NatsSettings, *, name: str, logger: logging.Logger | None = None
    ) -> None:
        self.settings = settings
        self.name = name
        self.publisher = Publisher(self, claim_check_bytes=settings.claim_check_bytes)
        self.watchdog = Watchdog(lambda: self.client)
        self._logger = logger or _logger
        self._client: Client | None = None
        self._borrowed = False
        self._closed = False
        self._reopening: asyncio.Task[None] | None = None
        self._listeners: set[Callable[[], None]] = set()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @classmethod
    def around(cls, client: Client, *, name: str, settings: NatsSettings | None = None) -> Self:
        """Return the bus of a connection that somebody else made, and will close.

        A client has one such bus: that of the first call, whose `name` and `settings` it keeps.
        """
        bus = vars(client).get(_BUS)
        if not isinstance(bus, cls):
            bus = cls(settings or NatsSettings(), name=name)
            bus._client = client
            bus._borrowed = True
            vars(client)[_BUS] = bus
        return bus

    @property
    def client(self) -> Client:
        """The client of nats-py in use now.

        Raises:
            MessageBusError: The bus was never opened.
        """
        if self._client is None:
            raise MessageBusError("the message bus is not open", operation="connect")
        return self._client

    @property
    def js(self) -> JetStreamContext:
        """The JetStream context of `client`."""
        return self.client.jetstream(timeout=API_TIMEOUT_SECONDS)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client is not None and self._client.is_connected

    @property
    def closed(self) -> bool:
        """Whether it is closed, and will not come back by itself."""
        if self._borrowed and self._client is not None:
            return self._client.is_closed
        return self._closed

    async def open(self) -> None:
        """Connect. A second call does nothing.

        Raises:
            MessageBusError: Nobody answered for `connect_timeout_seconds`, or the server refused
                the credentials; the latter is not retryable.
            MissingExtraError: A `creds_file` is given and nkeys is not installed.
        """
        if self._client is None:
            self._closed = False
            self._client = await self._connect()
            self._logger.info("connected to NATS", extra={"server": self._server})

    async def close(self) -> None:
        """Close the connection. A second call does nothing, nor does one before `open`.

        Handlers that still run are not waited for; what they acknowledge from now on is lost and
        comes again. Drain the subscribers first.
        """
        self._closed = True
        if self._reopening is not None:
            self._reopening.cancel()
            await asyncio.wait([self._reopening])
            self._reopening = None
        if self._client is not None and not self._borrowed and not self._client.is_closed:
            await self._client.close()

    async def ping(self) -> dict[str, object]:
        """Ask JetStream for an answer and return what tells the server.

        Raises:
            MessageBusError: No answer in time.
        """
        if not self.connected:
            raise MessageBusError("not connected to NATS", operation="ping")
        with bus_errors("ping"):
            account = await self.js.account_info()
        return {"server": self._server, "streams": account.streams, "consumers": account.consumers}

    async def ensure_stream(self, stream: StreamDefinition) -> None:
        """Create the stream, or widen the one there is. Any number of services may do so at once.

        Nothing is ever narrowed: subjects are united, and of two limits the wider one stays.

        Raises:
            MessageBusError: The stream there is differs in what cannot be changed without losing
                its messages (storage, retention), or another stream holds one of the subjects,
                and is named with it. Not retryable. Retryable when JetStream did not answer.
        """
        await ensure_stream(self, stream)

    async def ensure_stream_config(self, config: StreamConfig) -> None:
        """Do as `ensure_stream` for a configuration in NATS's own terms.

        Where it says nothing of replicas, there are as many as the settings say.
        """
        await ensure_stream(self, config)

    def on_connection(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called after each reconnection; return what stops that."""
        self._listeners.add(listener)
        return lambda: self._listeners.discard(listener)

    async def suspect(self) -> None:
        """Tell that the server does not answer: if it indeed does not, take another connection."""
        client = self.client
        if not client.is_connected:
            return
        try:
            await self.ping()
        except MessageBusError:
            self._logger.warning("NATS does not answer; connecting anew")
            await client.force_reconnect()

    @property
    def _server(self) -> str | None:
        url = self.client.connected_url
        return None if url is None else f"{url.hostname}:{url.port}"

    async def _connect(self) -> Client:
        """Connect a new client within the time allowed."""
        client = LeanClient()
        refused: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        last: list[Exception] = []

        async def on_error(error: Exception) -> None:
            last[:] = [error]
            if is_refusal(error) and not refused.done():
                refused.set_result(error)
            self._logger.debug("NATS: %s", reason_of(error))

        async def on_closed() -> None:
            self._on_closed(client)

        options = self._options()
        servers = ", ".join(self.settings.servers)
        connecting = asyncio.create_task(
            client.connect(error_cb=on_error, closed_cb=on_closed, **options)
        )
        ends: set[asyncio.Future[Any]] = {connecting, refused}
        try:
            await asyncio.wait(
                ends,
                timeout=self.settings.connect_timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not connecting.done():
                # After a refusal the client goes on trying, and its later errors tell less.
                error = refused.result() if refused.done() else [TimeoutError(), *last][-1]
                raise bus_error("connect", error, server=servers) from error
            with bus_errors("connect", server=servers):
                connecting.result()
        except BaseException:
            connecting.cancel()
            await asyncio.wait([connecting])
            if client.is_connecting or client.is_connected:
                await client.close()
            raise
        return client

    def _options(self) -> dict[str, Any]:
        settings = self.settings
        options: dict[str, Any] = {
            "servers": list(settings.servers),
            "name": self.name,
            "connect_timeout": settings.connect_timeout_seconds,
            "reconnect_time_wait": _RETRY_SECONDS,
            "max_reconnect_attempts": -1,
            "ping_interval": _PING_SECONDS,
            "flush_timeout": API_TIMEOUT_SECONDS,
            "disconnected_cb": self._on_disconnected,
            "reconnected_cb": self._on_reconnected,
            "user": settings.user,
            "password": _reveal(settings.password),
            "token": _reveal(settings.token),
        }
        if settings.creds_file is not None:
            try:
                importlib.import_module("nkeys")
            except ImportError as cause:
                raise missing_extra("nkeys", cause) from cause
            options["user_credentials"] = str(settings.creds_file)
        if settings.tls_ca_file or settings.tls_cert_file:
            try:
                options["tls"] = self._tls()
            except (OSError, ValueError) as error:
                raise MessageBusError(
                    f"TLS files cannot be used: {error}", operation="connect", retryable=False
                ) from error
        return options

    def _tls(self) -> ssl.SSLContext:
        settings = self.settings
        context = ssl.create_default_context(cafile=settings.tls_ca_file)
        if settings.tls_cert_file is not None:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
        return context

    async def _on_disconnected(self) -> None:
        if not self._closed:
            self._logger.warning("connection to NATS lost; trying to get it back")

    async def _on_reconnected(self) -> None:
        self._logger.info("connected to NATS again", extra={"server": self._server})
        self._notify()

    def _on_closed(self, client: Client) -> None:
        # The client gives up for good on any protocol error the server reports, expired
        # credentials among them. A new client takes its place.
        if client is self._client and not self._closed and self._reopening is None:
            self._reopening = asyncio.create_task(self._reopen())

    async def _reopen(self) -> None:
        while True:
            try:
                self._client = await self._connect()
            except MessageBusError as error:
                self._logger.warning("NATS: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                break
        self._reopening = None
        self._logger.info("connected to NATS anew", extra={"server": self._server})
        self._notify()

    def _notify(self) -> None:
        for listener in list(self._listeners):
            listener()


def _reveal(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
