"""Publishing into a stream, acknowledged by the server once it is stored."""

from __future__ import annotations

from collections import Counter
from copy import copy
from typing import TYPE_CHECKING, Final

from shared.errors import MessageBusError
from shared.legacy.table import handed_on
from shared.messaging.publishing import batches
from shared.messaging.publishing.middleware import through
from shared.messaging.publishing.sender import Sender
from shared.messaging.publishing.wire import OutgoingMessage, PubAck
from shared.messaging.steps import check_steps

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from shared.legacy.messaging.event_publisher import JetStreamEventPublisher
    from shared.messaging.connection.connection import Connection
    from shared.messaging.publishing.middleware import PublishMiddleware, Send

__all__ = [
    "HEADROOM_BYTES",
    "JetStreamEventPublisher",
    "OutgoingMessage",
    "PubAck",
    "Publisher",
]

# Room for the headers a dead letter adds: what could be published can also be a dead letter.
HEADROOM_BYTES = 8 * 1024

_EVERY: Final = object()  # the key of all messages, where they are ordered without keys


class Publisher:
    """Publishes to JetStream and waits for the acknowledgements.

    At most `window` messages are unacknowledged at a time, over all callers: who comes then waits,
    which is the backpressure. An acknowledgement is awaited for `timeout_seconds`. A message may
    be as large as the server takes, less `headroom_bytes`. With `claim_check_bytes`, a body larger
    than that is left at the object store first, and subscribers of this package collect it before
    their handler sees the message.

    **While NATS is away** nothing is sent, and nothing kept to be sent later. All who publish wait
    together for the connection, `timeout_seconds` from when the first of them met the outage;
    after that every message fails at once until the connection is back. A server that holds the
    connection but is silent (a message's time ran out, and no answer came to any since it was sent)
    is tried with one message at a time, and the others fail at once, until it answers.
    """

    def __init__(
        self,
        bus: Connection,
        *,
        window: int = 256,
        timeout_seconds: float = 5.0,
        headroom_bytes: int = HEADROOM_BYTES,
        claim_check_bytes: int | None = None,
    ) -> None:
        self._sender = Sender(
            bus,
            window=window,
            timeout_seconds=timeout_seconds,
            headroom_bytes=headroom_bytes,
            claim_check_bytes=claim_check_bytes,
        )
        self._send: Send = self._sender.send
        self._send_batch: Send = self._sender.send_batch
        self._plain = self

    def with_middleware(self, *steps: PublishMiddleware) -> Publisher:
        """Return a publisher of the same connection and window with steps around each message.

        The first step is the outermost, outside of those this publisher may have already. See
        `shared.messaging.publishing.middleware` for what a step is.

        Raises:
            TypeError: A step is not an async function of a message and `call_next`.
        """
        check_steps(steps, "message")
        if not steps:
            return self
        publisher = copy(self)
        vars(publisher).update(
            _send=through(steps, self._send),
            _send_batch=through(steps, self._send_batch, alone=self._send),
        )
        return publisher

    @property
    def plain(self) -> Publisher:
        """The same without middleware: for what is none of the service's own messages."""
        return self._plain

    async def publish(self, message: OutgoingMessage) -> PubAck:
        """Publish one message.

        >>> message = OutgoingMessage("evt.invoice.paid", b"{}", {}, message_id="invoice-7")
        >>> await bus.publisher.publish(message)
        PubAck(stream='INVOICE', sequence=2, duplicate=False)
        >>> await bus.publisher.publish(message)
        PubAck(stream='INVOICE', sequence=2, duplicate=True)

        Raises:
            MessageBusError: It is not known to be stored. When `retryable`, publish it again under
                the same `message_id`: if the first did arrive, the answer says `duplicate`.
        """
        (result,) = await self._send((message,))
        if isinstance(result, MessageBusError):
            raise result
        return result

    async def publish_all(
        self,
        messages: Sequence[OutgoingMessage],
        *,
        ordered: bool = False,
        keys: Sequence[Hashable | None] | None = None,
    ) -> list[PubAck | MessageBusError]:
        """Publish the messages in their order, many in flight, and return each one's outcome.

        An error stands at its message's place and does not keep the later ones back, unless they
        are ordered: a message is then sent when the one before it is acknowledged, and once one
        fails, none after it is sent, and each of their errors has ``details["held_back"]``. So a
        later message is never stored while an earlier one may be missing. Publish all that failed
        again, in the same order and under the same ids, to go on.

        Args:
            messages: what to publish.
            ordered: all of them in one order. `publish_atomic` keeps an order much faster.
            keys: instead, one for each message: those of one key are ordered, those of different
                keys, or of none, are not.
        """
        if keys is None:
            if not ordered:
                return await self._send(messages)
            keys = [_EVERY] * len(messages)
        outcomes: dict[int, PubAck | MessageBusError] = {}
        failed: dict[Hashable, MessageBusError] = {}
        for places_of_round in _rounds(keys):
            places = [place for place in places_of_round if keys[place] not in failed]
            results = await self._send([messages[place] for place in places])
            outcomes |= zip(places, results, strict=True)
            for place in places_of_round:
                key = keys[place]
                if key in failed:
                    outcomes[place] = batches.held_back(failed[key])
                elif key is not None and isinstance(outcome := outcomes[place], MessageBusError):
                    failed[key] = outcome
        return [outcomes[place] for place in range(len(messages))]

    async def publish_atomic(
        self, messages: Sequence[OutgoingMessage]
    ) -> list[PubAck | MessageBusError]:
        """Publish the messages in batches that are each stored whole or not at all (ADR-50).

        One batch holds what goes to one stream, at most 1,000 messages; each stream's batches
        follow one another in the order of the messages, and after one that failed its later ones
        are not sent. Raises nothing: each message's outcome stands at its place.

        A batch that the server refused has ``details["batch_refused"]`` set in the error of each of
        its messages, and of those not sent on its account: none of them is stored, and
        `publish_all` may do what the batch could not. It is refused, for instance, for a single
        message whose id the stream knows already, on servers before 2.12, and by a stream that
        was made without `allow_atomic`. Any other error is of unknown outcome, the same for
        the whole batch: publish it again under the same ids. What was then not sent on its account
        has ``details["held_back"]``. A message alone is published without a batch.
        """
        outcomes: dict[int, PubAck | MessageBusError] = {}
        for places in batches.by_stream(messages):
            failed: MessageBusError | None = None
            for batch in batches.split(places):
                if failed is None:
                    results = await self._send_batch([messages[place] for place in batch])
                    failed = next((r for r in results if not isinstance(r, PubAck)), None)
                else:
                    results = [batches.held_back(failed) for _ in batch]
                outcomes |= zip(batch, results, strict=True)
        return [outcomes[place] for place in range(len(messages))]


def _rounds(keys: Sequence[Hashable | None]) -> list[list[int]]:
    """Return the places in rounds: the first of each key, the second of each, and so on.

    What has no key need not wait for anything, and is in the first round.
    """
    rounds: list[list[int]] = [[]]
    seen: Counter[Hashable] = Counter()
    for place, key in enumerate(keys):
        number = 0 if key is None else seen[key]
        seen[key] += 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(place)
    return rounds


__getattr__, __dir__ = handed_on(__name__)
