"""The durable consumer on the server, made to fit its subscription."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from shared.errors import MessageBusError
from shared.messaging._gate import translated

if TYPE_CHECKING:
    from shared.messaging.bus import Bus
    from shared.messaging.subscription import Subscription

_logger = logging.getLogger(__name__)

_STREAM_NOT_FOUND = 10059

# Messages that wait for their next attempt count against this too, and the server stops in silence
# once it is reached. What a subscriber holds is bounded by its concurrency already.
_MAX_ACK_PENDING = 10_000


async def ensure_consumer(bus: Bus, subscription: Subscription) -> None:
    """Create the durable consumer, or change the one there is where the subscription asks for it.

    The server never gives up on a message by itself (`max_deliver` -1): that is ours to decide.
    What cannot be changed, such as where the consumer began to read, stays as it is.

    Raises:
        MessageBusError: The stream is not there, or JetStream did not answer.
    """
    stream = subscription.stream or ""
    asked: dict[str, object] = {
        "filter_subject": subscription.subject,
        "filter_subjects": None,
        "ack_wait": subscription.ack_wait_seconds,
        "backoff": None,
        "max_deliver": -1,
        "max_ack_pending": _MAX_ACK_PENDING,
        "inactive_threshold": None,
    }
    with translated("subscribe", subject=subscription.subject, stream=stream):
        try:
            existing = (await bus.js.consumer_info(stream, subscription.durable)).config
        except nats.js.errors.NotFoundError as error:
            if error.err_code == _STREAM_NOT_FOUND:
                raise MessageBusError(
                    f"stream {stream} is not there yet", operation="subscribe", stream=stream
                ) from error
            existing = None
        wanted = replace(
            existing
            or ConsumerConfig(
                name=subscription.durable,
                durable_name=subscription.durable,
                deliver_policy=DeliverPolicy.ALL,
                ack_policy=AckPolicy.EXPLICIT,
            ),
            **asked,
        )
        if existing is None:
            await bus.js.add_consumer(stream, wanted)
            return
        changes = {
            name: f"{is_} -> {value}"
            for name, value in asked.items()
            if (is_ := getattr(existing, name)) != value and (is_ or value)
        }
        if changes:
            await bus.js.add_consumer(stream, wanted)
            _logger.info("consumer %s changed", subscription.durable, extra={"changes": changes})
