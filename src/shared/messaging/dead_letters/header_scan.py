"""Headers of a stream's messages, read in pages without the bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from pydantic_core import to_json

from shared.errors import MessageBusError
from shared.messaging.connection.errors import API_TIMEOUT_SECONDS, translated

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from nats.aio.subscription import Subscription

    from shared.messaging.connection.connection import Connection

_NO_MESSAGES = "404"
_CONSUMER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Head:
    """A stored message without its body."""

    sequence: int
    stored_at: datetime
    headers: Mapping[str, str]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Heads:
    """A page of them, oldest first, and how many messages there were after it."""

    heads: list[Head]
    left: int


async def read_heads(
    bus: Connection, stream: str, subject: str, *, after: int, limit: int
) -> Heads:
    """Read the heads of at most `limit` messages of the subject with a sequence above `after`.

    By a consumer that lives for this page alone: Direct Get would bring the bodies along, and a
    consumer that outlived the page could be gone, or have passed something over, by the next.

    Raises:
        MessageBusError: JetStream does not answer, or the connection was lost meanwhile.
    """
    client = bus.client
    with translated("read", stream=stream):
        info = await bus.js.add_consumer(
            stream,
            ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=after + 1,
                ack_policy=AckPolicy.NONE,
                filter_subject=subject,
                headers_only=True,
                mem_storage=True,
                num_replicas=1,
                inactive_threshold=_CONSUMER_SECONDS,
            ),
        )
        count = min(limit, info.num_pending or 0)
        page = Heads([], 0)
        try:
            if count:
                inbox = client.new_inbox()
                subscription = await client.subscribe(inbox)
                try:
                    await client.publish(
                        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{info.name}",
                        to_json({"batch": count, "no_wait": True}),
                        reply=inbox,
                    )
                    page = await _collect(subscription, count, stream)
                finally:
                    await subscription.unsubscribe()
        finally:
            await _delete(bus, stream, info.name)
    return page


async def _collect(subscription: Subscription, count: int, stream: str) -> Heads:
    heads: list[Head] = []
    left = 0
    while len(heads) < count:
        message = await subscription.next_msg(timeout=API_TIMEOUT_SECONDS)
        status = (message.headers or {}).get("Status")
        if status == _NO_MESSAGES:  # somebody removed messages meanwhile
            return Heads(heads, 0)
        place = message.metadata
        if status is not None or place.sequence.consumer != len(heads) + 1:
            raise MessageBusError(
                f"read of {stream} failed: a part of the page was lost on its way",
                operation="read",
                stream=stream,
            )
        headers = message.headers or {}
        size = int(headers.get("Nats-Msg-Size", 0))
        heads.append(Head(place.sequence.stream, place.timestamp, headers, size))
        left = place.num_pending
    return Heads(heads, left)


async def _delete(bus: Connection, stream: str, name: str) -> None:
    # It would go by itself; that it is gone already is no trouble.
    try:
        await bus.js.delete_consumer(stream, name)
    except (nats.errors.Error, TimeoutError):
        return
