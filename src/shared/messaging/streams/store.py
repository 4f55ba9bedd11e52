"""Streams and their consumers, asked of the server."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import nats.js.errors

from shared.errors import MessageBusError
from shared.events.streams import covers
from shared.messaging.connection.errors import bus_errors
from shared.messaging.streams.api import ask_jetstream
from shared.messaging.streams.facts import (
    ConsumerFacts,
    StoredMessage,
    StreamFacts,
    consumer_facts,
    moment_of,
    stream_facts,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from nats.js.api import RawStreamMsg

    from shared.messaging.connection.connection import Connection


_NOT_FOUND, _BAD_REQUEST = 404, 400


class StreamStore:
    """Reads streams, their consumers and their messages, and stores messages on conditions.

    Every method raises `MessageBusError` when JetStream does not answer, or refuses.
    """

    def __init__(self, bus: Connection) -> None:
        self._bus = bus

    @property
    def server_version(self) -> tuple[int, int, int]:
        """The release of the server we are connected to."""
        version = self._bus.client.connected_server_version
        return version.major, version.minor, version.patch

    async def stream(self, name: str) -> StreamFacts | None:
        """Return a stream; None when there is none."""
        asked = _now()
        answer = await self._ask(f"STREAM.INFO.{name}")
        return stream_facts(name, answer, asked, _now()) if answer else None

    async def holders(self) -> dict[str, tuple[str, ...]]:
        """Return all streams of the account with the subjects they take."""
        return {
            stream["config"]["name"]: tuple(stream["config"].get("subjects") or ())
            async for stream in self._listed("STREAM.LIST", "streams")
        }

    async def name_of(self, subject: str) -> str | None:
        """Return the name of the stream that takes the subject; None when none does."""
        answer = await self._ask("STREAM.NAMES", {"subject": subject})
        return next(iter(answer.get("streams") or ()), None)

    async def counts(self, name: str, subjects: str) -> dict[str, int]:
        """Return how many messages a stream has by subject, of those that match."""
        answer = await self._ask(f"STREAM.INFO.{name}", {"subjects_filter": subjects})
        return {s: int(n) for s, n in ((answer.get("state") or {}).get("subjects") or {}).items()}

    async def consumers(self, stream: str) -> dict[str, ConsumerFacts]:
        """Return the consumers of a stream by name; none where there is no stream."""
        listed = self._listed(f"CONSUMER.LIST.{stream}", "consumers")
        return {told["name"]: consumer_facts(told) async for told in listed}

    async def stored_at(self, name: str, subject: str, sequence: int) -> datetime | None:
        """Return when the first message of a subject from a sequence on was stored, if any."""
        answer = await self._ask(
            f"STREAM.MSG.GET.{name}", {"seq": sequence, "next_by_subj": subject}
        )
        return moment_of((answer.get("message") or {}).get("time"))

    async def at(self, stream: str, sequence: int) -> StoredMessage | None:
        """Return the message of that sequence; None when it is gone, or its stream is."""
        with bus_errors("read", stream=stream):
            try:
                return _stored(await self._bus.js.get_msg(stream, sequence))
            except nats.js.errors.NotFoundError:
                return None

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last message of the subject, as the stream's leader knows it; None without."""
        with bus_errors("read", stream=stream):
            try:
                return _stored(await self._bus.js.get_last_msg(stream, subject))
            except nats.js.errors.NotFoundError:
                return None

    async def add_subject(self, stream: str, subject: str) -> None:
        """Have the stream take one more subject. It keeps all that it took.

        Raises:
            MessageBusError: not retryable when the server refuses, or has no such stream.
        """
        with bus_errors("look up", stream=stream):
            config = (await self._bus.js.stream_info(stream)).config
        subjects = [*(config.subjects or ()), subject]
        await self._bus.ensure_stream_config(replace(config, subjects=subjects))

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
        with bus_errors("publish", subject=subject):
            ack = await self._bus.js.publish(
                subject, b"", stream=stream, headers={**headers, **conditions}
            )
        return int(ack.seq)

    async def _listed(self, verb: str, what: str) -> AsyncIterator[dict[str, Any]]:
        """Yield all of a list, of which the server tells 256 at a time."""
        count = 0
        while True:
            page = await self._ask(verb, {"offset": count})
            part = page.get(what) or []
            count += len(part)
            for each in part:
                yield each
            if not part or count >= page.get("total", 0):
                return

    async def _ask(self, verb: str, request: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Return the server's answer; an empty one where there is no such thing."""
        answer = await ask_jetstream(self._bus, verb, request, operation="look up")
        if (refusal := answer.get("error")) is None:
            return answer
        if refusal.get("code") == _NOT_FOUND:
            return {}
        raise MessageBusError(
            f"JetStream refuses {verb}: {refusal.get('description')}",
            operation="look up",
            retryable=refusal.get("code") != _BAD_REQUEST,
            details={"error_code": refusal.get("err_code")},
        )


async def find_consumers(bus: Connection, subject: str) -> tuple[ConsumerFacts, ...]:
    """Return the consumers that messages of the subject reach, by name; none without a stream.

    Raises:
        MessageBusError: JetStream does not answer.
    """
    store = StreamStore(bus)
    stream = await store.name_of(subject)
    if stream is None:
        return ()
    return tuple(
        consumer
        for _, consumer in sorted((await store.consumers(stream)).items())
        if not consumer.filters or any(covers(each, subject) for each in consumer.filters)
    )


def _stored(message: RawStreamMsg) -> StoredMessage:
    body, at = message.data or b"", message.time or _now()
    return StoredMessage(message.seq or 0, dict(message.headers or {}), at, len(body), body)


def _now() -> datetime:
    return datetime.now(UTC)
