"""The consumers on the server that a subject's messages reach, and what they say of themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import nats.js.errors

from shared.events.streams import covers
from shared.messaging.connection.errors import translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.js.api import ConsumerConfig

    from shared.messaging.connection.connection import Connection

__all__ = ["StoredConsumer", "find_consumers"]


@dataclass(frozen=True, slots=True)
class StoredConsumer:
    """A consumer as the server has it; without `filters` it reads all of its stream."""

    name: str
    stream: str
    filters: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


async def find_consumers(bus: Connection, subject: str) -> tuple[StoredConsumer, ...]:
    """Return the consumers that messages of the subject reach, by name; none without a stream.

    Raises:
        MessageBusError: JetStream does not answer.
    """
    with translated("look up", subject=subject):
        try:
            stream = str(await bus.js.find_stream_name_by_subject(subject))
        except nats.js.errors.NotFoundError:
            return ()
        found: dict[str, StoredConsumer] = {}
        offset = 0
        while page := await bus.js.consumers_info(stream, offset):
            offset += len(page)  # the server lists 256 at a time
            for info in page:
                filters = _filters(info.config)
                if not filters or any(covers(each, subject) for each in filters):
                    found[info.name] = StoredConsumer(
                        info.name, stream, filters, dict(info.config.metadata or {})
                    )
    return tuple(consumer for _, consumer in sorted(found.items()))


def _filters(config: ConsumerConfig) -> tuple[str, ...]:
    single = (config.filter_subject,) if config.filter_subject else ()
    return tuple(config.filter_subjects or ()) or single
