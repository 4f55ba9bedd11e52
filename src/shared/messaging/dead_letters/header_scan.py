"""Headers of a stream's messages, read in pages without the bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from pydantic_core import to_json

from shared.errors import MessageBusError
from shared.messaging.connection.errors import API_TIMEOUT_SECONDS, bus_errors
from shared.messaging.streams.facts import StoredMessage

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

    from shared.messaging.connection.connection import Connection

_NO_MESSAGES = "404"
_CONSUMER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class HeaderPage:
    """Messages without their bodies, oldest first, and how many there were after them."""

    messages: list[StoredMessage]
    left: int


async def scan_headers(
    bus: Connection, stream: str, subject: str, *, after: int, limit: int
) -> HeaderPage:
    """Read the headers of at most `limit` messages of the subject with a sequence above `after`.

    By a consumer that lives for this page alone: Direct Get would bring the bodies along, and a
    consumer that outlived the page could be gone, or have passed something over, by the next.

    Raises:
        MessageBusError: JetStream does not answer, or the connection was lost meanwhile.
    """
    client = bus.client
    with bus_errors("read", stream=stream):
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
        page = HeaderPage([], 0)
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


async def _collect(subscription: Subscription, count: int, stream: str) -> HeaderPage:
    found: list[StoredMessage] = []
    left = 0
    while len(found) < count:
        message = await subscription.next_msg(timeout=API_TIMEOUT_SECONDS)
        status = (message.headers or {}).get("Status")
        if status == _NO_MESSAGES:  # somebody removed messages meanwhile
            return HeaderPage(found, 0)
        place = message.metadata
        if status is not None or place.sequence.consumer != len(found) + 1:
            raise MessageBusError(
                f"read of {stream} failed: a part of the page did not arrive",
                operation="read",
                stream=stream,
            )
        headers = message.headers or {}
        size = int(headers.get("Nats-Msg-Size", 0))
        found.append(StoredMessage(place.sequence.stream, headers, place.timestamp, size))
        left = place.num_pending
    return HeaderPage(found, left)


async def _delete(bus: Connection, stream: str, name: str) -> None:
    # It would go by itself; that it is gone already is no trouble.
    try:
        await bus.js.delete_consumer(stream, name)
    except (nats.errors.Error, TimeoutError):
        return
