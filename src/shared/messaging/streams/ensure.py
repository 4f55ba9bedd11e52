"""Streams created, and widened, but never narrowed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import nats.js.errors
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from shared.errors import MessageBusError
from shared.events import StreamDefinition
from shared.messaging.connection.errors import translated
from shared.messaging.streams.diff import Difference, compare, united

if TYPE_CHECKING:
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
        difference = compare(existing, config)
        _refuse_danger(existing, difference)
        if not difference.changes:
            if difference.left:
                _logger.warning(
                    "stream %s is not all that is wanted of it, and is left so: %s",
                    name,
                    "; ".join(difference.left.values()),
                    extra={"left": difference.left},
                )
            return
        with translated("update stream", stream=name):
            await bus.js.update_stream(difference.merged)
        _logger.info("stream %s changed", name, extra={"changes": difference.changes})
        # Who looked before this change may write over it a moment later: look again then.
        await asyncio.sleep(_SETTLED_SECONDS)
    raise MessageBusError(f"stream {name} keeps changing", operation="ensure stream", stream=name)


def stream_config(
    definition: StreamDefinition, settings: NatsSettings, version: ServerVersion
) -> StreamConfig:
    """Return what is asked of a server of that version."""
    release = (version.major, version.minor)
    per_subject = definition.max_messages_per_subject
    return StreamConfig(
        name=definition.name,
        subjects=united(definition.subjects),
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        max_age=definition.max_age_seconds,
        max_msgs_per_subject=-1 if per_subject is None else per_subject,
        allow_rollup_hdrs=True,
        duplicate_window=min(settings.dedupe_window_seconds, definition.max_age_seconds),
        num_replicas=settings.replicas,
        allow_msg_ttl=True if release >= (2, 11) else None,
        allow_msg_schedules=True if release >= (2, 12) else None,
        allow_atomic=True if release >= (2, 12) else None,
    )


async def _look_up(bus: Connection, name: str) -> StreamConfig | None:
    with translated("look up stream", stream=name):
        try:
            return (await bus.js.stream_info(name)).config
        except nats.js.errors.NotFoundError:
            return None


async def _created(bus: Connection, config: StreamConfig) -> bool:
    """Create the stream; return False if another service was quicker."""
    with translated("create stream", stream=config.name):
        try:
            await bus.js.add_stream(config)
        except nats.js.errors.BadRequestError as error:
            if error.err_code == _NAME_IN_USE:
                return False
            if error.err_code == _SUBJECTS_OVERLAP:
                raise MessageBusError(
                    f"stream {config.name} cannot take {', '.join(config.subjects or ())}: "
                    "another stream holds one of these subjects",
                    operation="create stream",
                    stream=config.name,
                    retryable=False,
                ) from error
            raise
    return True


def _refuse_danger(existing: StreamConfig, difference: Difference) -> None:
    if difference.refused:
        raise MessageBusError(
            f"stream {existing.name} is left as it is, since the change would lose messages or "
            f"cannot be made: {'; '.join(difference.refused.values())}",
            operation="ensure stream",
            stream=existing.name,
            retryable=False,
            details={"refused": dict(difference.refused)},
        )
