"""Messages read from a stream by Direct Get (ADR-31): raw, and many for one request."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import nats.errors
from pydantic_core import to_json

from shared.messaging.connection.errors import API_TIMEOUT_SECONDS, bus_errors
from shared.messaging.streams.facts import StoredMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.messaging.connection.connection import Connection

_NOBODY = "503"

# The release that answers one request with many messages (ADR-31, "Batched requests").
_MANY_SINCE = (2, 11)


async def read_messages(
    bus: Connection, stream: str, request: Mapping[str, str | int]
) -> list[StoredMessage]:
    """Return what the request asks for; nothing where there is nothing.

    Raises:
        MessageBusError: JetStream does not answer.
    """
    version = bus.client.connected_server_version
    if "batch" not in request or (version.major, version.minor) >= _MANY_SINCE:
        return await _read(bus, stream, request)
    found: list[StoredMessage] = []
    one = {name: value for name, value in request.items() if name != "batch"}
    while len(found) < int(request["batch"]) and (next_one := await _read(bus, stream, one)):
        found += next_one
        one["seq"] = next_one[0].sequence + 1
    return found


async def _read(
    bus: Connection, stream: str, request: Mapping[str, str | int]
) -> list[StoredMessage]:
    client = bus.client
    inbox = client.new_inbox()
    found: list[StoredMessage] = []
    with bus_errors("read", stream=stream):
        subscription = await client.subscribe(inbox)
        try:
            await client.publish(f"$JS.API.DIRECT.GET.{stream}", to_json(request), reply=inbox)
            while not found or "batch" in request:
                message = await subscription.next_msg(timeout=API_TIMEOUT_SECONDS)
                headers = message.headers or {}
                status = headers.get("Status")
                if status == _NOBODY:
                    raise nats.errors.NoRespondersError
                if status is not None:
                    break
                found.append(
                    StoredMessage(
                        int(headers["Nats-Sequence"]),
                        headers,
                        datetime.fromisoformat(headers["Nats-Time-Stamp"]),
                        len(message.data),
                        message.data,
                    )
                )
        finally:
            await subscription.unsubscribe()
    return found
