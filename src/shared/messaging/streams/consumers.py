"""The durable consumer on the server, made to fit its subscription."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from shared.errors import MessageBusError
from shared.messaging.consuming.pull import GROUP
from shared.messaging.streams.api import ask_jetstream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.messaging.connection.connection import Connection
    from shared.messaging.consuming.subscription import Subscription

_logger = logging.getLogger(__name__)

_STREAM_NOT_FOUND = 10059
_CONSUMER_NOT_FOUND = 10014

# Messages that wait for their next attempt count against this too, and the server stops in silence
# once it is reached. What a subscriber holds is bounded by its concurrency already.
_MAX_ACK_PENDING = 10_000

# How many pauses after a crash may differ; later ones are as long as the last of these.
_MAX_BACKOFF = 32

# How much an ordered subscriber fetches ahead (prefetch), for messages of other keys.
_PREFETCH = 16
_MIN_PREFETCH = 256

# A subscriber of an ordered consumer that is silent for so long loses its place to another one.
_MIN_PIN_SECONDS = 2.0

# The release that can give all messages of a consumer to one subscriber at a time (ADR-42).
_PINNED_SINCE = (2, 11)

Config = dict[str, object]


def can_pin(bus: Connection) -> bool:
    """Tell whether the server can keep the replicas of a subscription from passing each other."""
    version = bus.client.connected_server_version
    return (version.major, version.minor) >= _PINNED_SINCE


def prefetch(subscription: Subscription) -> int:
    """Return how many messages an ordered subscriber fetches ahead at most, begun or not."""
    return min(max(_PREFETCH * subscription.concurrency, _MIN_PREFETCH), _MAX_ACK_PENDING)


def pin_seconds(subscription: Subscription) -> float:
    """Return after how long a silence another replica takes an ordered subscription over."""
    return max(subscription.ack_wait_seconds, _MIN_PIN_SECONDS)


async def ensure_consumer(bus: Connection, subscription: Subscription) -> None:
    """Create the durable consumer, or change the one there is where the subscription asks for it.

    The server never gives up on a message by itself (`max_deliver` -1): that is ours to decide.
    What cannot be changed, such as where the consumer began to read, stays as it is.

    Raises:
        MessageBusError: The stream is not there, or JetStream did not answer.
    """
    stream, durable = subscription.stream or "", subscription.durable
    asked = wanted_of_consumer(bus, subscription)
    there = await _call(bus, "INFO", subscription)
    refusal = there.get("error", {})
    if refusal.get("err_code") == _STREAM_NOT_FOUND:
        raise MessageBusError(
            f"stream {stream} is not there yet", operation="subscribe", stream=stream
        )
    if refusal.get("err_code") == _CONSUMER_NOT_FOUND:
        new: Config = {"name": durable, "durable_name": durable, "deliver_policy": "all"}
        await _create(bus, subscription, {**new, "ack_policy": "explicit", **_given(asked)})
        return
    if refusal:
        raise _refused("look up", subscription, refusal)
    existing = there["config"]
    changes = {
        name: f"{existing.get(name)} -> {value}"
        for name, value in asked.items()
        if existing.get(name) != value and (existing.get(name) or value)
    }
    metadata = _metadata(existing)
    if any(metadata.get(name) != value for name, value in subscription.metadata.items()):
        changes["metadata"] = ", ".join(subscription.metadata)
    if not changes:
        return
    kept = {name: value for name, value in existing.items() if name not in asked}
    kept["metadata"] = {**metadata, **subscription.metadata}
    await _create(bus, subscription, {**kept, **_given(asked)})
    _logger.info("consumer %s changed", durable, extra={"changes": changes})


async def unpin(bus: Connection, subscription: Subscription) -> None:
    """Let another replica have the messages of an ordered consumer without waiting for silence.

    Raises:
        MessageBusError: JetStream did not answer.
    """
    await _call(bus, "UNPIN", subscription, {"group": GROUP})


async def withdraw(bus: Connection, subscription: Subscription) -> None:
    """Have the server forget the requests that nobody hears the answer of.

    It does so when it is asked how the consumer stands. Else it would give the next message's pin
    to one of them, and nobody would have the message before the time of that pin is over.

    Raises:
        MessageBusError: JetStream did not answer.
    """
    await _call(bus, "INFO", subscription)


def wanted_of_consumer(bus: Connection, subscription: Subscription) -> Config:
    """Return what a subscription wants of its consumer, in the server's terms; None is: not set."""
    asked: Config = {
        "filter_subject": subscription.subject,
        "filter_subjects": None,
        "ack_wait": _nanoseconds(subscription.ack_wait_seconds),
        "backoff": _backoff(subscription),
        "max_deliver": -1,
        "max_ack_pending": _MAX_ACK_PENDING,
        "inactive_threshold": None,
        "priority_policy": None,
        "priority_groups": None,
        "priority_timeout": None,
    }
    if subscription.order_by is None:
        return asked
    if can_pin(bus):
        return asked | {
            "max_ack_pending": prefetch(subscription),
            "priority_policy": "pinned_client",
            "priority_groups": [GROUP],
            "priority_timeout": _nanoseconds(pin_seconds(subscription)),
        }
    _logger.warning(
        "%s: this NATS server is older than 2.11 and cannot keep replicas from passing each other; "
        "to keep the order, all messages are handled one at a time",
        subscription.durable,
    )
    return asked | {"max_ack_pending": 1}


def _backoff(subscription: Subscription) -> list[int] | None:
    """Return how long the server waits for a heartbeat: longer, the more attempts were lost.

    It is what keeps a message that kills its process from doing so at the pace of `ack_wait`: from
    the second loss on, the pause of the policy is added. The first entry is `ack_wait` to the
    server. An entry is chosen by the count of deliveries, which may be more than the attempts made.
    Answers that ask for a message again name their own pause, and heartbeats start the wait
    anew, whichever entry it is.

    An ordered subscription has none: a replica that takes over begins nothing until all that the
    other had in flight is here, so that a longer pause for one message would be one for all.
    """
    policy = subscription.retry
    if subscription.order_by is not None or policy.attempts == 1:
        return None
    ack_wait = subscription.ack_wait_seconds
    lost_again = [
        _nanoseconds(ack_wait + policy.pause(attempt))
        for attempt in range(2, min(policy.attempts, _MAX_BACKOFF) + 1)
    ]
    return [_nanoseconds(ack_wait), *lost_again]


async def _create(bus: Connection, subscription: Subscription, config: Config) -> None:
    metadata = {**_metadata(config), **subscription.metadata}
    if metadata:
        config = {**config, "metadata": metadata}
    request = {"stream_name": subscription.stream, "config": config}
    if refusal := (await _call(bus, "CREATE", subscription, request)).get("error"):
        raise _refused("change", subscription, refusal)


async def _call(
    bus: Connection,
    verb: str,
    subscription: Subscription,
    request: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    stream = subscription.stream or ""
    verb = f"CONSUMER.{verb}.{stream}.{subscription.durable}"
    return await ask_jetstream(
        bus, verb, request, operation="subscribe", subject=subscription.subject, stream=stream
    )


def _refused(
    what: str, subscription: Subscription, refusal: Mapping[str, object]
) -> MessageBusError:
    return MessageBusError(
        f"{what} of consumer {subscription.durable} was refused: {refusal.get('description')}",
        operation="subscribe",
        subject=subscription.subject,
        stream=subscription.stream,
        details={"error_code": refusal.get("err_code")},
    )


def _given(asked: Config) -> Config:
    return {name: value for name, value in asked.items() if value is not None}


def _metadata(config: Config) -> dict[str, str]:
    """Return what others wrote on a consumer; the server's own entries are not ours to send."""
    metadata = cast("Mapping[str, str]", config.get("metadata") or {})
    return {name: value for name, value in metadata.items() if not name.startswith("_nats.")}


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
