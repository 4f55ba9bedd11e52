"""What a stream is and holds, asked of the server by itself: for who keeps the stream's books."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import nats.js.errors

from shared.messaging.connection.errors import translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.js.api import RawStreamMsg

    from shared.messaging.connection.bus import Bus

__all__ = ["StoredMessage", "StoredStream", "StreamStore"]


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream as the server has it: its subjects, its copies, and what its server is able to.

    ``max_age_seconds`` is 0 when messages are kept for ever.
    """

    name: str
    subjects: tuple[str, ...]
    replicas: int
    atomic: bool
    rollup: bool
    retention: str
    max_age_seconds: float
    server: tuple[int, int]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message's place in its stream, and its headers."""

    sequence: int
    headers: Mapping[str, str]


class StreamStore:
    """Reads streams, and stores single messages in them on conditions."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def stream(self, name: str) -> StoredStream | None:
        """Return the stream; None when there is none.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        with translated("look up", stream=name):
            try:
                config = (await self._bus.js.stream_info(name)).config
            except nats.js.errors.NotFoundError:
                return None
        version = self._bus.client.connected_server_version
        return StoredStream(
            name=name,
            subjects=tuple(config.subjects or ()),
            replicas=config.num_replicas or 1,
            atomic=bool(config.allow_atomic),
            rollup=bool(config.allow_rollup_hdrs),
            retention=config.retention or "limits",
            max_age_seconds=config.max_age or 0.0,
            server=(version.major, version.minor),
        )

    async def name_of(self, subject: str) -> str | None:
        """Return the name of the stream that takes the subject; None when none does.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        with translated("look up", subject=subject):
            try:
                return str(await self._bus.js.find_stream_name_by_subject(subject))
            except nats.js.errors.NotFoundError:
                return None

    async def add_subject(self, stream: str, subject: str) -> None:
        """Have the stream take one more subject. It keeps all that it took.

        Raises:
            MessageBusError: not retryable when the server refuses, or has no such stream.
        """
        with translated("look up", stream=stream):
            config = (await self._bus.js.stream_info(stream)).config
        subjects = [*(config.subjects or ()), subject]
        await self._bus.ensure_stream_config(replace(config, subjects=subjects))

    async def at(self, stream: str, sequence: int) -> StoredMessage | None:
        """Return the message of that sequence; None when it is gone, or its stream is.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        with translated("read", stream=stream):
            try:
                return _stored(await self._bus.js.get_msg(stream, sequence))
            except nats.js.errors.NotFoundError:
                return None

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last message of the subject, as the stream's leader knows it; None without.

        Raises:
            MessageBusError: JetStream does not answer.
        """
        with translated("read", stream=stream):
            try:
                return _stored(await self._bus.js.get_last_msg(stream, subject))
            except nats.js.errors.NotFoundError:
                return None

    async def replace_last(
        self, stream: str, subject: str, headers: Mapping[str, str], *, before: int
    ) -> int:
        """Store an empty message as the only one of its subject; return its sequence.

        Args:
            stream: where.
            subject: one of the stream's; it loses its other messages.
            headers: of the message.
            before: the sequence of the subject's last message now; 0 when it has none.

        Raises:
            MessageBusError: it has another by now; or JetStream does not answer.
        """
        conditions = {
            "Nats-Rollup": "sub",
            "Nats-Expected-Last-Subject-Sequence": str(before),
        }
        with translated("publish", subject=subject):
            ack = await self._bus.js.publish(
                subject, b"", stream=stream, headers={**headers, **conditions}
            )
        return int(ack.seq)


def _stored(message: RawStreamMsg) -> StoredMessage:
    return StoredMessage(message.seq or 0, dict(message.headers or {}))
