"""The first design's one object for all of messaging, on `Bus`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

from shared.config import NatsSettings
from shared.errors import MessageBusError
from shared.legacy.messaging.dependencies import ServiceDependencies
from shared.legacy.messaging.event_publisher import JetStreamEventPublisher
from shared.messaging.connection.bus import Bus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.client import Client
    from nats.js import JetStreamContext

    from shared.legacy.messaging.dependencies import DepKeys
    from shared.legacy.messaging.event_subscriber import JetStreamEventSubscriber
    from shared.messaging.consuming.subscription import SubscriberStatus

T = TypeVar("T", bound=JetStreamEventPublisher)

_VARIABLES = {
    "NATS_USER": "user",
    "NATS_PASSWORD": "password",
    "NATS_TOKEN": "token",
    "NATS_CREDS_FILE": "creds_file",
    "NATS_TLS_CA_FILE": "tls_ca_file",
    "NATS_TLS_CERT_FILE": "tls_cert_file",
    "NATS_TLS_KEY_FILE": "tls_key_file",
}


class JetStreamWrapper:
    """A connection with its publishers, subscribers and what they depend on.

    New services use `shared.service.Service` instead.

    Attributes:
        dependencies: what subscribers get by `get_dependency`.
    """

    def __init__(self, logger: Any | None = None) -> None:
        self.dependencies = ServiceDependencies()
        self._logger = logger or logging.getLogger(__name__)
        self._bus: Bus | None = None
        self._publishers: dict[type[JetStreamEventPublisher], JetStreamEventPublisher] = {}
        self._subscribers: dict[type[JetStreamEventSubscriber], JetStreamEventSubscriber] = {}
        self._listening: dict[type[JetStreamEventSubscriber], asyncio.Task[None]] = {}

    @property
    def bus(self) -> Bus:
        """The bus underneath.

        Raises:
            MessageBusError: Not connected.
        """
        if self._bus is None:
            raise MessageBusError("not connected: await connect(servers) first")
        return self._bus

    @property
    def client(self) -> Client:
        """The nats-py client."""
        return self.bus.client

    @property
    def js(self) -> JetStreamContext:
        """The JetStream context of nats-py."""
        return self.bus.js

    @property
    def publishers(self) -> dict[str, JetStreamEventPublisher]:
        """The publishers by class name; classes of the same name by module and name."""
        names = Counter(kind.__name__ for kind in self._publishers)
        return {
            kind.__name__ if names[kind.__name__] == 1 else f"{kind.__module__}.{kind.__name__}": p
            for kind, p in self._publishers.items()
        }

    @property
    def subscribers(self) -> dict[str, SubscriberStatus]:
        """Where each started subscriber stands, by durable name."""
        return {s.durable_name: s.status for s in self._subscribers.values()}

    async def connect(
        self, servers: Sequence[str] = (), *, settings: NatsSettings | None = None
    ) -> None:
        """Connect; a second call does nothing.

        Without `settings` the credentials are those of the environment: `NATS_USER` and
        `NATS_PASSWORD`, `NATS_TOKEN`, `NATS_CREDS_FILE`, `NATS_TLS_CA_FILE`,
        `NATS_TLS_CERT_FILE` and `NATS_TLS_KEY_FILE`.

        Raises:
            MessageBusError: See `Bus.open`.
        """
        if self._bus is not None:
            return
        if settings is None:
            given = {f: os.environ[v] for v, f in _VARIABLES.items() if os.environ.get(v)}
            if servers:
                given["servers"] = tuple(servers)  # type: ignore[assignment]
            settings = NatsSettings.model_validate(given)
        bus = Bus(settings, name=os.environ.get("SERVICE_NAME", "glam"), logger=self._logger)
        await bus.open()
        self._bus = bus

    async def close(self) -> None:
        """Drain the subscribers, all at once, and close the connection; twice is harmless."""
        subscribers, self._subscribers = self._subscribers, {}
        await asyncio.gather(*(s.stop() for s in subscribers.values()))
        listening, self._listening = self._listening, {}
        if listening:
            await asyncio.wait(listening.values())
        self._publishers.clear()
        if self._bus is not None:
            await self._bus.close()
            self._bus = None

    def is_connected(self) -> bool:
        """Tell whether there is a connection now."""
        return self._bus is not None and self._bus.connected

    def is_healthy(self) -> bool:
        """Tell whether there is a connection and no started subscriber has ended.

        One that waits for its stream is well; `subscribers` tells that it waits.
        """
        return self.is_connected() and not self._ended()

    async def probe(self) -> dict[str, SubscriberStatus]:
        """Return `subscribers`, once the server has answered.

        Readiness asks it as `Probe("messaging", wrapper.probe)`.

        Raises:
            MessageBusError: Not connected, no answer in time, or a subscriber has ended.
        """
        await self.bus.ping()
        if ended := self._ended():
            raise MessageBusError(f"not listening any more: {', '.join(ended)}", operation="probe")
        return self.subscribers

    def register_dependency(self, key: DepKeys | type[Any], instance: Any) -> None:
        """Have `get_dependency(key)` return `instance`."""
        self.dependencies.register(key, instance)

    def create_publisher(self, publisher_class: type[T]) -> T:
        """Return the publisher of that class, made on the first call.

        Raises:
            MessageBusError: Not connected.
        """
        existing = self.get_publisher(publisher_class)
        if existing is not None:
            return existing
        publisher = publisher_class(self.client, self.js, self._logger)
        publisher.bus = self.bus
        self._publishers[publisher_class] = publisher
        return publisher

    def get_publisher(self, publisher_class: type[T]) -> T | None:
        """Return the publisher of that class if it was made."""
        found = self._publishers.get(publisher_class)
        return found if isinstance(found, publisher_class) else None

    def create_subscriber(
        self, subscriber_class: type[JetStreamEventSubscriber]
    ) -> JetStreamEventSubscriber:
        """Make a subscriber without starting it.

        Raises:
            MessageBusError: Not connected.
        """
        return subscriber_class(self.client, self.js, self._logger, self)

    async def start_subscriber(self, subscriber_class: type[JetStreamEventSubscriber]) -> None:
        """Start a subscriber in the background; one of a class that runs already is left alone.

        Returns at once, also when the stream is not there yet: it is waited for, as `subscribers`
        tells. If its `listen` dies, the log says so; started again, it is made anew.

        Raises:
            MessageBusError: Not connected.
            ValueError: Its durable name, stream or concurrency is unusable.
        """
        listening = self._listening.get(subscriber_class)
        if listening is not None and not listening.done():
            return
        subscriber = self.create_subscriber(subscriber_class)
        durable = subscriber.status.durable  # says now, not in the task, that it is unusable
        listening = asyncio.create_task(subscriber.listen(), name=durable)
        listening.add_done_callback(self._tell_death)
        self._subscribers[subscriber_class] = subscriber
        self._listening[subscriber_class] = listening

    def _ended(self) -> list[str]:
        """Return the durable names of the started subscribers that listen no more."""
        return [task.get_name() for task in self._listening.values() if task.done()]

    def _tell_death(self, listening: asyncio.Task[None]) -> None:
        if not listening.cancelled() and (error := listening.exception()):
            self._logger.error(
                "subscriber %s died; its messages wait", listening.get_name(), exc_info=error
            )
