"""The first design's publisher: a class per service, on `Publisher`."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import nats.errors

from shared.errors import MessageBusError, ValidationError
from shared.events.envelope import Envelope
from shared.events.streams import StreamDefinition, covers, united
from shared.legacy.events.context import EventContext, EventPayload
from shared.messaging.connection.bus import Bus
from shared.messaging.connection.errors import bus_errors
from shared.messaging.publisher import OutgoingMessage
from shared.platform.streams import STREAMS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from nats.aio.client import Client
    from nats.js import JetStreamContext

# What a stream of the service's own may have otherwise, and still take its messages.
_KEPT = frozenset({"storage", "retention"})


class JetStreamEventPublisher(ABC):
    """Publishes events and commands of one service into one stream.

    A publish here is not tied to a database transaction; the outbox of `shared.delivery` is.

    Attributes:
        client: the nats-py client it was made with.
        js: the JetStream context it was made with.
        logger: the logger it was made with, or one of its own.
    """

    def __init__(self, client: Client, js: JetStreamContext, logger: Any | None = None) -> None:
        self.client = client
        self.js = js
        self.logger = logger or logging.getLogger(type(self).__module__)
        self._stream_ensured = False

    @property
    @abstractmethod
    def stream_name(self) -> str:
        """The stream it publishes into."""

    @property
    @abstractmethod
    def subjects(self) -> list[str]:
        """The subjects it may publish to; wildcards are allowed."""

    @property
    @abstractmethod
    def service_name(self) -> str:
        """The service in whose name it publishes."""

    @property
    def service_version(self) -> str:
        """The version of the service, told in the metadata of each message."""
        return "1.0.0"

    @cached_property
    def bus(self) -> Bus:
        """The bus it publishes through; the wrapper sets its own."""
        return Bus.around(self.client, name=self.service_name)

    async def ensure_stream(self) -> None:
        """Create the stream, or widen the one there is; publishing does it by itself.

        A stream that the service made with another storage or retention keeps them, and gets
        nothing but the subjects it lacks. One that takes no messages at all, such as a mirror, is
        refused.

        Raises:
            MessageBusError: See `Bus.ensure_stream`.
        """
        name = str(getattr(self.stream_name, "value", self.stream_name))
        subjects = self._filters()
        if name in STREAMS:
            subjects = united([*subjects, *STREAMS[name].subjects])
        try:
            await self.bus.ensure_stream(StreamDefinition(name, subjects))
        except MessageBusError as error:
            refused = error.details.get("refused")
            if not refused or not _KEPT.issuperset(refused):
                raise
            await self._widen_subjects(name, subjects)
            told = "; ".join(refused.values())
            self.logger.info("stream %s keeps its own settings: %s", name, told)
        self._stream_ensured = True

    async def publish_event(
        self,
        subject: str = "",
        payload: Mapping[str, Any] | None = None,
        correlation_id: str | None = None,
        trace_id: str | None = None,
        idempotency_key: str | int | UUID | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        event_type: str | None = None,
    ) -> str:
        """Publish an event and return its id, once the stream has it.

        Ids that are not given are those of the current context. Of two messages on one subject
        with the same `idempotency_key`, the stream keeps the first.

        Args:
            subject: Where to.
            payload: UUIDs, datetimes, decimals, enums and models in it become JSON.
            correlation_id: Ties the messages of one piece of work together.
            trace_id: The trace it belongs to.
            idempotency_key: What makes it the same message when it is published again.
            metadata: Added to the source service and version; a version in it is the one told.
            event_type: An older name of `subject`.

        Raises:
            ValidationError: The subject is not among `subjects`.
            EnvelopeError: The payload is not valid JSON.
            MessageBusError: It is not known to be stored.
        """
        subject = subject or event_type or ""
        self._check(subject)
        context = EventContext.create(
            subject=subject,
            source_service=self.service_name,
            correlation_id=correlation_id,
            idempotency_key=None if idempotency_key is None else str(idempotency_key),
            metadata={"version": self.service_version, **(metadata or {})},
            trace_id=trace_id,
        )
        envelope = Envelope.from_dict(EventPayload(context, payload or {}).to_event_dict())
        await self._publish(
            OutgoingMessage(subject, envelope.encode(), envelope.headers(), envelope.message_id)
        )
        return envelope.event_id

    async def publish_command(
        self, command_type: str, payload: Mapping[str, Any], **kwargs: Any
    ) -> str:
        """Publish to `command_type`, with `cmd.` before it if missing; see `publish_event`."""
        return await self.publish_event(_prefixed("cmd.", command_type), payload, **kwargs)

    async def publish_event_response(
        self, subject: str, payload: Mapping[str, Any], **kwargs: Any
    ) -> str:
        """Publish to `subject`, with `evt.` before it if missing; see `publish_event`."""
        return await self.publish_event(_prefixed("evt.", subject), payload, **kwargs)

    async def _publish(self, message: OutgoingMessage) -> None:
        if not self._stream_ensured:
            await self.ensure_stream()
        try:
            await self.bus.publisher.publish(message)
        except MessageBusError as error:
            self._stream_ensured = False
            if not isinstance(error.__cause__, nats.errors.NoRespondersError):
                raise
        else:
            return
        # Somebody deleted the stream.
        await self.ensure_stream()
        await self.bus.publisher.publish(message)

    async def _widen_subjects(self, name: str, subjects: tuple[str, ...]) -> None:
        with bus_errors("look up stream", stream=name):
            existing = (await self.bus.js.stream_info(name)).config
        await self.bus.ensure_stream_config(replace(existing, subjects=list(subjects)))

    def _filters(self) -> tuple[str, ...]:
        """Return `subjects` as they are meant: `cmd.x.*` stands for everything below `cmd.x`."""
        return united(f"{s[:-1]}>" if s.endswith(".*") else s for s in self.subjects)

    def _check(self, subject: str) -> None:
        if not any(covers(f, subject) for f in self._filters()):
            raise ValidationError(
                f"{type(self).__name__} does not publish to {subject!r}: "
                f"stream {self.stream_name} takes {', '.join(self.subjects)}",
                field="subject",
                value=subject,
            )


def _prefixed(prefix: str, subject: str) -> str:
    return subject if subject.startswith(prefix) else f"{prefix}{subject}"
