"""The first design's subscriber: a class per subject, on `Subscriber`."""

from __future__ import annotations

import logging
import sys
from abc import ABC, abstractmethod
from functools import cached_property
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of_distribution
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from shared.events import Envelope, EnvelopeError, context_from_message
from shared.events.streams import covers
from shared.messaging.connection.bus import Bus
from shared.messaging.consuming.retry import RetryPolicy
from shared.messaging.consuming.subscription import Subscription
from shared.messaging.subscriber import Subscriber
from shared.tracing import span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.client import Client
    from nats.js import JetStreamContext

    from shared.legacy.messaging.dependencies import DepKeys, ServiceDependencies
    from shared.messaging.consuming.delivery import Delivery
    from shared.messaging.consuming.pipeline import Middleware
    from shared.messaging.consuming.subscription import SubscriberStatus


class Wrapper(Protocol):
    """What a subscriber has of its `JetStreamWrapper`."""

    dependencies: ServiceDependencies

    @property
    def bus(self) -> Bus:
        """The bus of its connection."""


class JetStreamEventSubscriber(ABC):
    """Handles the messages of one subject; `subject` may hold wildcards.

    A class that has an `event_type` needs no `subject`: it is the older name of the same.

    Messages are handled one at a time, since such classes share a session among their messages,
    read before they write, and count on the order. A subclass that does none of this may raise
    `concurrency`. A message that waits for its next attempt keeps nobody waiting: later ones pass.

    `middleware` are steps around `on_event`, each `async def step(delivery, call_next)`; see
    `shared.messaging.Subscription`.

    Dead letters name `handler_version`, or else the `__version__` of the package the class is in,
    or the version its distribution was installed with.

    Attributes:
        client: the nats-py client it was made with.
        js: the JetStream context it was made with.
        logger: the logger it was made with, or one of its own.
    """

    concurrency: ClassVar[int] = 1
    retry: ClassVar[RetryPolicy] = RetryPolicy(attempts=3)
    ack_wait_seconds: ClassVar[float] = 30.0
    deadline_seconds: ClassVar[float | None] = None
    drain_seconds: ClassVar[float] = 20.0
    handler_version: ClassVar[str | None] = None
    middleware: ClassVar[Sequence[Middleware]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if hasattr(cls, "event_type") and getattr(cls.subject, "__isabstractmethod__", False):
            cls.subject = property(lambda self: self.event_type)  # type: ignore[assignment]

    def __init__(
        self,
        client: Client,
        js: JetStreamContext,
        logger: Any | None = None,
        wrapper: Wrapper | None = None,
    ) -> None:
        self.client = client
        self.js = js
        self.logger = logger or logging.getLogger(type(self).__module__)
        self._wrapper = wrapper
        self._listened = False

    @property
    @abstractmethod
    def stream_name(self) -> str:
        """The stream it reads."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """What it reads of the stream."""

    @property
    @abstractmethod
    def durable_name(self) -> str:
        """The name of its durable consumer; replicas share it."""

    @abstractmethod
    async def on_event(self, event: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        """Handle one message, given as its envelope; returning acknowledges it."""

    async def on_error(self, error: Exception, event: dict[str, Any]) -> bool:  # noqa: ARG002
        """Tell whether a message whose handling failed is acknowledged all the same.

        Otherwise the error decides: another attempt, or the dead letters.
        """
        return False

    def get_dependency(self, key: DepKeys | type[Any]) -> Any:
        """Return what was registered with the wrapper under `key`.

        Raises:
            KeyError: Nothing was.
        """
        if self._wrapper is None:
            raise KeyError(f"no dependency {key!r}: {type(self).__name__} has no wrapper")
        return self._wrapper.dependencies.get(key)

    def dep(self, key: DepKeys | type[Any]) -> Any:
        """Do as `get_dependency`."""
        return self.get_dependency(key)

    @cached_property
    def bus(self) -> Bus:
        """The bus it reads through: the wrapper's, if there is one."""
        if self._wrapper is not None:
            return self._wrapper.bus
        return Bus.around(self.client, name=self.durable_name)

    @cached_property
    def _engine(self) -> Subscriber:
        return self._new_engine()

    def _new_engine(self) -> Subscriber:
        subscription = Subscription(
            subject=self.subject,
            durable=self.durable_name,
            handler=self._handle,
            stream=str(getattr(self.stream_name, "value", self.stream_name)),
            concurrency=self.concurrency,
            retry=self.retry,
            ack_wait_seconds=self.ack_wait_seconds,
            deadline_seconds=self.deadline_seconds,
            middleware=self.middleware,
        )
        version = self.handler_version or _version_of(type(self).__module__)
        return Subscriber(self.bus, subscription, service=self.bus.name, version=version)

    @property
    def alive(self) -> bool:
        """Whether it reads, or tries to."""
        return self._engine.alive

    @property
    def status(self) -> SubscriberStatus:
        """Where it stands now."""
        return self._engine.status

    async def listen(self) -> None:
        """Read until `stop`; a stream that is not there yet is waited for.

        After it ended, it may be called again.

        Raises:
            RuntimeError: It listens already.
        """
        if self._listened and not self.alive:
            self._engine = self._new_engine()
        self._listened = True
        await self._engine.run()

    async def stop(self) -> None:
        """Stop reading, and let handlers finish for `drain_seconds`; twice is harmless."""
        await self._engine.drain(self.drain_seconds)

    async def _handle(self, delivery: Delivery) -> None:
        envelope = Envelope.from_message(delivery.body, delivery.headers)
        if envelope.subject != delivery.subject and not covers(self.subject, envelope.subject):
            raise EnvelopeError(
                f"the envelope says {envelope.subject}, but came on {delivery.subject}"
            )
        context = context_from_message(envelope, delivery.headers, self.bus.name)
        event = envelope.to_dict()
        with span(
            f"handle {delivery.subject}",
            kind="consumer",
            context=context,
            subscriber=self.durable_name,
            event_id=envelope.event_id,
            attempt=delivery.attempt,
        ):
            try:
                await self.on_event(event, dict(delivery.headers))
            except Exception as error:
                if not await self.on_error(error, event):
                    raise


def _version_of(module: str) -> str | None:
    """Return the version of the package that a module is in, if it tells one."""
    package = module.partition(".")[0]
    told = getattr(sys.modules.get(package), "__version__", None)
    if told is not None:
        return str(told)
    try:
        return version_of_distribution(package)
    except PackageNotFoundError:
        return None
