"""Streams created, and widened, but never narrowed."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

import nats.js.errors
from nats.js.api import PersistMode, RetentionPolicy, StorageType, StreamConfig

from shared.errors import MessageBusError
from shared.events import StreamDefinition
from shared.messaging._gate import translated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.messaging.bus import Bus

Limit = TypeVar("Limit", int, float, int | None, float | None)

_logger = logging.getLogger(__name__)

# JetStream's error numbers (nats-server: server/errors.json).
_NAME_IN_USE = 10058
_SUBJECTS_OVERLAP = 10065

# How often to look again when another service created or changed the stream at the same moment.
_RACES = 10


async def ensure_stream(bus: Bus, wanted: StreamDefinition | StreamConfig) -> None:
    """See `Bus.ensure_stream`."""
    config = _config(bus, wanted) if isinstance(wanted, StreamDefinition) else wanted
    name = config.name or ""
    for _ in range(_RACES):
        existing = await _look_up(bus, name)
        if existing is None:
            if await _created(bus, config):
                _logger.info("stream %s created", name, extra={"subjects": config.subjects})
                return
            continue
        merged = widen(existing, config)
        changes = _difference(existing, merged)
        if not changes:
            return
        with translated("update stream", stream=name):
            await bus.js.update_stream(merged)
        _logger.info("stream %s changed", name, extra={"changes": changes})
        # Two who widen at once may each overwrite the other's subjects: look again.
    raise MessageBusError(f"stream {name} keeps changing", operation="ensure stream", stream=name)


def _config(bus: Bus, definition: StreamDefinition) -> StreamConfig:
    version = bus.client.connected_server_version
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
        duplicate_window=min(bus.settings.dedupe_window_seconds, definition.max_age_seconds),
        num_replicas=bus.settings.replicas,
        allow_msg_ttl=True if release >= (2, 11) else None,
        allow_msg_schedules=True if release >= (2, 12) else None,
        allow_atomic=True if release >= (2, 12) else None,
    )


async def _look_up(bus: Bus, name: str) -> StreamConfig | None:
    with translated("look up stream", stream=name):
        try:
            return (await bus.js.stream_info(name)).config
        except nats.js.errors.NotFoundError:
            return None


async def _created(bus: Bus, config: StreamConfig) -> bool:
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


def widen(existing: StreamConfig, wanted: StreamConfig) -> StreamConfig:
    """Return `existing` with everything `wanted` adds, and nothing taken away.

    Raises:
        MessageBusError: They differ in what decides whether messages are kept at all.
    """
    refusals = [
        f"{what} is {_text(is_)}, wanted {_text(asked)}"
        for what, is_, asked in (
            ("storage", existing.storage, wanted.storage),
            ("retention", existing.retention, wanted.retention),
        )
        if is_ != asked
    ]
    refusals += [f"it is {what}" for what in ("sealed", "mirror") if getattr(existing, what, None)]
    if refusals:
        raise MessageBusError(
            f"stream {existing.name} is left as it is, since the change would lose messages: "
            f"{'; '.join(refusals)}. Move its messages to a new stream, or delete it.",
            operation="ensure stream",
            stream=existing.name,
            retryable=False,
            details={"refused": refusals},
        )
    return replace(
        existing,
        subjects=united([*(existing.subjects or ()), *(wanted.subjects or ())]),
        max_age=_wider(existing.max_age, wanted.max_age),
        max_msgs=_wider(existing.max_msgs, wanted.max_msgs),
        max_bytes=_wider(existing.max_bytes, wanted.max_bytes),
        max_msg_size=_wider(existing.max_msg_size, wanted.max_msg_size),
        max_msgs_per_subject=_wider(existing.max_msgs_per_subject, wanted.max_msgs_per_subject),
        duplicate_window=max(existing.duplicate_window, wanted.duplicate_window),
        num_replicas=max(existing.num_replicas or 1, wanted.num_replicas or 1),
        allow_rollup_hdrs=existing.allow_rollup_hdrs
        or (wanted.allow_rollup_hdrs and not existing.deny_purge),
        allow_direct=existing.allow_direct or wanted.allow_direct,
        allow_msg_ttl=existing.allow_msg_ttl or wanted.allow_msg_ttl,
        allow_msg_schedules=existing.allow_msg_schedules or wanted.allow_msg_schedules,
        # A stream that acknowledges before it stores takes no batches (ADR-50).
        allow_atomic=existing.allow_atomic
        or (wanted.allow_atomic and existing.persist_mode != PersistMode.ASYNC),
    )


def united(subjects: Iterable[str]) -> list[str]:
    """Return the subjects without those that another one catches anyway."""
    unique = list(dict.fromkeys(subjects))
    return [s for s in unique if not any(o != s and covers(o, s) for o in unique)]


def covers(wide: str, narrow: str) -> bool:
    """Tell whether every subject that matches `narrow` matches `wide`.

    >>> covers("evt.order.>", "evt.order.*"), covers("evt.order.*", "evt.order.>")
    (True, False)
    """
    wide_tokens, narrow_tokens = wide.split("."), narrow.split(".")
    for index, token in enumerate(wide_tokens):
        if token == ">":  # noqa: S105 - a token of a subject
            return len(narrow_tokens) > index
        if index >= len(narrow_tokens) or narrow_tokens[index] == ">":
            return False
        if token not in ("*", narrow_tokens[index]):
            return False
    return len(wide_tokens) == len(narrow_tokens)


def _wider(existing: Limit, wanted: Limit) -> Limit:
    """Return the limit that keeps more; 0, -1 and None are no limit at all."""
    if not existing or not wanted or existing <= 0:
        return existing
    return wanted if wanted <= 0 else max(existing, wanted)


def _difference(before: StreamConfig, after: StreamConfig) -> dict[str, str]:
    pairs = {f.name: (getattr(before, f.name), getattr(after, f.name)) for f in fields(before)}
    return {
        name: f"{_text(old)} -> {_text(new)}"
        for name, (old, new) in pairs.items()
        if old != new and (old or new)
    }


def _text(value: object) -> str:
    return str(getattr(value, "value", value))
