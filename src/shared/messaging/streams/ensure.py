"""Streams created, and widened, but never narrowed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import nats.js.errors
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from shared.errors import MessageBusError
from shared.events.streams import StreamDefinition, overlap
from shared.messaging.connection.errors import bus_errors
from shared.messaging.streams.diff import StreamDiff, compare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.client import ServerVersion

    from shared.config import NatsSettings
    from shared.messaging.connection.connection import Connection

_logger = logging.getLogger(__name__)

# JetStream's error numbers (nats-server: server/errors.json).
_NAME_IN_USE = 10058
_SUBJECTS_OVERLAP = 10065

# How often to look again when another service created or changed the stream at the same moment.
_RACES = 10

# How long after a change another service may still write what it made of the stream before.
_SETTLED_SECONDS = 0.25


async def ensure_stream(bus: Connection, wanted: StreamDefinition | StreamConfig) -> None:
    """See `Bus.ensure_stream`."""
    if isinstance(wanted, StreamDefinition):
        config = stream_config(wanted, bus.settings, bus.client.connected_server_version)
    else:
        config = replace(wanted, num_replicas=wanted.num_replicas or bus.settings.replicas)
    name = config.name or ""
    for _ in range(_RACES):
        existing = await _look_up(bus, name)
        if existing is None:
            if await _created(bus, config):
                _logger.info("stream %s created", name, extra={"subjects": config.subjects})
                return
            continue
        diff = compare(existing, config)
        _refuse_danger(existing, diff)
        if not diff.changes:
            if diff.left:
                _logger.warning(
                    "stream %s is not all that is wanted of it, and is left so: %s",
                    name,
                    "; ".join(diff.left.values()),
                    extra={"left": diff.left},
                )
            return
        with bus_errors("update stream", stream=name):
            try:
                await bus.js.update_stream(diff.merged)
            except nats.js.errors.BadRequestError as error:
                await _refuse_overlap(bus, diff.merged, error)
                raise
        _logger.info("stream %s changed", name, extra={"changes": diff.changes})
        # Who looked before this change may write over it a moment later: look again then.
        await asyncio.sleep(_SETTLED_SECONDS)
    raise MessageBusError(f"stream {name} keeps changing", operation="ensure stream", stream=name)


def stream_config(
    definition: StreamDefinition, settings: NatsSettings, version: ServerVersion
) -> StreamConfig:
    """Return what is asked of a server of that version."""
    release = (version.major, version.minor)
    max_age = definition.max_age_seconds or 0
    window = definition.dedupe_window_seconds or settings.dedupe_window_seconds
    return StreamConfig(
        name=definition.name,
        subjects=list(definition.subjects),
        storage=StorageType(definition.storage),
        retention=RetentionPolicy(definition.retention),
        max_age=max_age,
        max_msgs=definition.max_messages or -1,
        max_bytes=definition.max_bytes or -1,
        max_msg_size=definition.max_message_bytes or -1,
        max_msgs_per_subject=definition.max_messages_per_subject or -1,
        allow_rollup_hdrs=True,
        duplicate_window=min(window, max_age) if max_age else window,
        num_replicas=definition.replicas or settings.replicas,
        allow_msg_ttl=True if release >= (2, 11) else None,
        allow_msg_schedules=True if release >= (2, 12) else None,
        allow_atomic=True if release >= (2, 12) else None,
    )


async def _look_up(bus: Connection, name: str) -> StreamConfig | None:
    with bus_errors("look up stream", stream=name):
        try:
            return (await bus.js.stream_info(name)).config
        except nats.js.errors.NotFoundError:
            return None


async def _created(bus: Connection, config: StreamConfig) -> bool:
    """Create the stream; return False if another service was quicker."""
    with bus_errors("create stream", stream=config.name):
        try:
            await bus.js.add_stream(config)
        except nats.js.errors.BadRequestError as error:
            if error.err_code == _NAME_IN_USE:
                return False
            await _refuse_overlap(bus, config, error)
            raise
    return True


async def _refuse_overlap(
    bus: Connection, config: StreamConfig, error: nats.js.errors.BadRequestError
) -> None:
    """Raise what names the stream that has one of the subjects, if that is why it was refused."""
    if error.err_code != _SUBJECTS_OVERLAP:
        return
    for (holder, held), subject in product(await _held(bus), config.subjects or ()):
        if overlap(held, subject) and holder != config.name:
            raise _taken(config.name or "", subject, holder, held) from error


async def check_holder(bus: Connection, name: str, subjects: Sequence[str]) -> bool:
    """Tell whether a stream that somebody else creates is there, and holds the subjects.

    Raises:
        MessageBusError: another stream holds one of them, or this one is there without it: who
            waits for it would wait for ever. Not retryable. Retryable when JetStream does not
            answer.
    """
    with bus_errors("look up stream", stream=name):
        held = await _held(bus)
        there = await _look_up(bus, name) is not None
    for subject in subjects:
        holders = [(holder, own) for holder, own in held if overlap(own, subject)]
        if any(holder == name for holder, _ in holders):
            continue
        if holders:
            raise _taken(name, subject, *holders[0])
        if there:
            raise MessageBusError(
                f"stream {name} is on the server and does not take {subject!r}: add it, "
                f"nats stream edit {name} --subjects=..., or name the stream that does",
                operation="look up stream",
                stream=name,
                retryable=False,
            )
    return there


async def _held(bus: Connection) -> list[tuple[str, str]]:
    """Return each subject that a stream takes, with the stream's name before it."""
    found: list[tuple[str, str]] = []
    offset = 0
    while page := await bus.js.streams_info(offset):
        offset += len(page)  # the server lists 256 at a time
        found += [(info.config.name or "", s) for info in page for s in info.config.subjects or ()]
    return found


def _taken(name: str, subject: str, holder: str, held: str) -> MessageBusError:
    """Return the error of a subject that another stream has: which, and what to do."""
    return MessageBusError(
        f"stream {name} cannot take {subject!r}: stream {holder} on the server takes {held!r}. "
        f"Name that stream where the subject is declared, Contract(..., stream={holder!r}), or "
        f"take the subject from it: nats stream edit {holder} --subjects=...",
        operation="create stream",
        stream=name,
        retryable=False,
        details={"holder": holder, "subject": subject},
    )


def _refuse_danger(existing: StreamConfig, diff: StreamDiff) -> None:
    if diff.refused:
        raise MessageBusError(
            f"stream {existing.name} is left as it is, since the change would lose messages or "
            f"cannot be made: {'; '.join(diff.refused.values())}",
            operation="ensure stream",
            stream=existing.name,
            retryable=False,
            details={"refused": dict(diff.refused)},
        )
