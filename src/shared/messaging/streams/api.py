"""One request to JetStream, asked and answered by hand.

nats-py drops the fields it does not know (priority groups, a stream's clock), so what it has no
words for is asked without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pydantic_core import from_json, to_json

from shared.messaging.connection.errors import API_TIMEOUT_SECONDS, bus_errors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.messaging.connection.connection import Connection


async def ask_jetstream(
    bus: Connection,
    verb: str,
    request: Mapping[str, object] | None = None,
    *,
    operation: str,
    subject: str | None = None,
    stream: str | None = None,
) -> dict[str, Any]:
    """Send a request to ``$JS.API.<verb>``; return the answer, of which ``error`` is a refusal.

    Args:
        bus: the connection.
        verb: what is asked, such as ``STREAM.INFO.ORDERS``.
        request: the body, if it needs one.
        operation: what it is for, said in the error.
        subject: what it is about, said in the error; the verb by default.
        stream: the same, where a stream is meant.

    Raises:
        MessageBusError: JetStream does not answer.
    """
    to = f"$JS.API.{verb}"
    body = to_json(request) if request else b""
    with bus_errors(operation, subject=subject or to, stream=stream):
        answer = await bus.client.request(to, body, timeout=API_TIMEOUT_SECONDS)
    return cast("dict[str, Any]", from_json(answer.data))
