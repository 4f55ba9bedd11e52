"""Fences: a stream refuses what comes from a relay that no longer holds the lease.

A relay that freezes knows nothing of the time that passed when it goes on: it would publish what it
read long ago, after another relay has published that and more. So before it publishes anything
under a lease, a relay leaves a message in the stream, on a subject of the partition, and every
publication names the sequence of that message as the last of its subject
(``Nats-Expected-Last-Subject-Sequence`` with ``-Subject``: nats-server from 2.12 on). The next
holder leaves another one, and the stream refuses all that still name the first. A holder replaces
only a fence with a lower token than its own, by the same means, so no late one comes on top.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import MessageBusError
from shared.messaging import StreamStore

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from shared.messaging import Bus, PubAck, StreamFacts


_logger = logging.getLogger(__name__)

_SINCE = (2, 12)
_TOKEN = "Glam-Lease"  # noqa: S105 - a header's name
_OWNER = "Glam-Relay"

# JetStream's error numbers (nats-server: server/errors.json). The second is said without comparing,
# while another message that names the same fence is on its way to the replicas.
_WRONG_LAST_SEQUENCE = 10071
_WRONG_LAST_SEQUENCE_YET = 10164


class StaleLeaseError(MessageBusError):
    """Another relay has fenced this one out."""


@dataclass(frozen=True, slots=True)
class StreamFeatures:
    """What decides how a stream is published to.

    ``atomic``: it takes batches. ``fenced``: it can refuse a late relay. ``replicated``: it lets
    one publication at a time name the same fence.
    """

    name: str
    atomic: bool = False
    fenced: bool = False
    replicated: bool = False


@dataclass(frozen=True, slots=True)
class Fence:
    """The headers that name the fence of a partition; empty where there is none."""

    headers: Mapping[str, str]


NO_FENCE = Fence({})


class Fences:
    """The fences of one outbox, in all streams it publishes to.

    Args:
        bus: where the streams are.
        outbox: the id of the outbox.
        owner: the relay, named in the fence for people who look at it.
        external: streams that somebody else looks after; they get no fences.
    """

    def __init__(
        self, bus: Bus, *, outbox: str, owner: str, external: Collection[str] = ()
    ) -> None:
        self._store = StreamStore(bus)
        self._external = frozenset(external)
        self._outbox = outbox
        self._owner = owner
        self._streams: dict[str, StreamFeatures] = {}
        self._names: dict[str, str] = {}
        self._standing: dict[tuple[str, int], tuple[int, Fence]] = {}

    async def features(self, subject: str) -> StreamFeatures | None:
        """Return what is known of the stream that takes the subject; None when there is none.

        Asked once, then remembered until `forget`.

        Raises:
            MessageBusError: the bus does not answer.
        """
        name = self._names.get(subject) or await self._store.name_of(subject)
        if name is None:
            return None
        features = self._streams.get(name)
        if features is None:
            features = await self._look_up(name)
            if features is None:
                return None
            self._streams[name] = features
        self._names[subject] = name
        return features

    async def raise_for(
        self, stream: StreamFeatures, leases: Iterable[tuple[int, int]]
    ) -> dict[int, Fence]:
        """Return the fence of each leased partition in the stream; raise those not yet standing.

        There are none where the stream cannot be fenced.

        Args:
            stream: the stream.
            leases: partitions and their tokens.

        Raises:
            StaleLeaseError: a later holder of the lease has raised its own.
            MessageBusError: the bus does not answer.
        """
        if not stream.fenced:
            return {}
        fences: dict[int, Fence] = {}
        missing: list[tuple[int, int]] = []
        for partition, token in leases:
            standing = self._standing.get((stream.name, partition))
            if standing is not None and standing[0] == token:
                fences[partition] = standing[1]
            else:
                missing.append((partition, token))
        if missing:
            raised = await asyncio.gather(*(self._raise(stream.name, *lease) for lease in missing))
            for (partition, token), fence in zip(missing, raised, strict=True):
                self._standing[stream.name, partition] = token, fence
                fences[partition] = fence
        return fences

    def forget(self, stream: str) -> None:
        """Look at the stream anew: it refused a fence, or may have been made anew."""
        self._streams.pop(stream, None)
        # The subject may be another stream's by now.
        for subject in [subject for subject, name in self._names.items() if name == stream]:
            del self._names[subject]
        for known in [known for known in self._standing if known[0] == stream]:
            del self._standing[known]

    async def _look_up(self, name: str) -> StreamFeatures | None:
        stream = await self._store.stream(name)
        if stream is None or self._store.server_version < _SINCE:
            return StreamFeatures(name) if stream is not None else None
        return StreamFeatures(
            name,
            atomic=stream.atomic,
            fenced=name not in self._external and await self._takes_fences(stream),
            replicated=stream.copies > 1,
        )

    async def _takes_fences(self, stream: StreamFacts) -> bool:
        """Have the stream take the subjects of fences."""
        if stream.retention == "interest":
            return False  # it keeps nothing that nobody reads, and so no fence
        if not stream.rollup:
            _logger.warning(
                "stream %s is not fenced: it was made without allow_rollup", stream.name
            )
            return False
        wanted = f"fence.{stream.name}.>"
        if wanted in stream.subjects:
            return True
        try:
            await self._store.add_subject(stream.name, wanted)
        except MessageBusError as error:
            if error.retryable:
                raise
            _logger.warning("stream %s is not fenced: %s", stream.name, error)
            return False
        return True

    async def _raise(self, stream: str, partition: int, token: int) -> Fence:
        subject = f"fence.{stream}.{self._outbox}.{partition}"
        last = await self._store.last(stream, subject)
        sequence = last.sequence if last is not None else 0
        theirs = int(last.headers.get(_TOKEN, "0")) if last is not None else 0
        if theirs > token:
            raise StaleLeaseError(
                f"another relay has taken over {subject}: its token is {theirs}, ours {token}",
                operation="publish",
                stream=stream,
                retryable=True,
            )
        if theirs < token:
            headers = {_TOKEN: str(token), _OWNER: self._owner}
            sequence = await self._store.replace_last(stream, subject, headers, before=sequence)
        return Fence(
            {
                "Nats-Expected-Last-Subject-Sequence": str(sequence),
                "Nats-Expected-Last-Subject-Sequence-Subject": subject,
            }
        )


def lost_fence(error: MessageBusError) -> bool:
    """Tell whether the server refused a message for the fence it named."""
    return error.details.get("error_code") == _WRONG_LAST_SEQUENCE


def fence_is_busy(result: PubAck | MessageBusError) -> bool:
    """Tell whether the server refused a message since another one names the same fence."""
    return (
        isinstance(result, MessageBusError)
        and result.details.get("error_code") == _WRONG_LAST_SEQUENCE_YET
    )
