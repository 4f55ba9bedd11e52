"""A stream as it is and as it is wanted: what is widened, what is left alone, what is refused.

Every field of a stream's configuration has its place in one of the tables below. What a wider
value cannot harm is widened. What somebody else may have meant, or what the server changes for good
or not at all, is left as it is and told. What decides whether messages are kept, or may be
published at all, stops who asks: it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypeVar

from nats.js.api import DiscardPolicy, PersistMode, StoreCompression, StreamConfig

from shared.events.streams import united

if TYPE_CHECKING:
    from collections.abc import Mapping

Limit = TypeVar("Limit", int, float, int | None, float | None)

# Refused: another value would lose messages, or no message gets in.
_REFUSED: Mapping[str, str] = {
    "storage": "move its messages to a new stream, or delete it",
    "retention": "move its messages to a new stream, or delete it",
    "mirror": "a mirror takes no messages: publish to its origin, or delete it",
    "sealed": "a sealed stream takes no messages for ever: use another name",
    "allow_msg_counter": "a stream of counters takes nothing else (ADR-49): use another name",
}

# Left alone and told, with what to do about it.
_LEFT: Mapping[str, str] = {
    "max_consumers": "further handlers will be refused: nats stream edit {name} --max-consumers=-1",
    "placement": "moving its replicas is for who runs the servers: nats stream edit {name}",
    "sources": "what it copies is for who set it up: nats stream edit {name}",
    "republish": "others may listen there: nats stream edit {name}",
    "subject_transform": "handlers read the subject that is stored, not the one that was published:"
    " nats stream edit {name}",
    "first_seq": "the server reads it at creation only",
    "persist_mode": "async acknowledges before it stores, and a crash loses what it acknowledged"
    " (ADR-56); only a new stream has another mode",
    "deny_delete": "the server never takes it back; only a new stream is without",
    "deny_purge": "the server never takes it back, and without purging there are no roll-ups, which"
    " fence out late relays; only a new stream is without",
    "consumer_limits": "consumers that ask for more are refused: nats stream edit {name}",
    "discard_new_per_subject": "a full subject refuses what is published: nats stream edit {name}",
    "subject_delete_marker_ttl": "the markers reach handlers as messages without a body (ADR-43): "
    "nats stream edit {name}",
    "mirror_direct": "it is of no use but on a mirror",
    "template_owner": "the server no longer has templates",
    "compression": "old blocks stay as they are either way: nats stream edit {name}",
}

# What is no matter unless it is asked for.
_MAY_BE_ANYTHING = frozenset({"storage", "retention", "first_seq", "compression"})


@dataclass(frozen=True, slots=True)
class StreamDiff:
    """What is between a stream and what is wanted of it; each mapping is by field.

    Attributes:
        merged: the stream with everything wanted added, and nothing taken away.
        changes: what that changes, as ``old -> new``.
        left: what differs and stays, as ``is ..., wanted ...: what to do``.
        refused: what differs and stops who asks, in the same form.
    """

    merged: StreamConfig
    changes: Mapping[str, str]
    left: Mapping[str, str]
    refused: Mapping[str, str]


def compare(existing: StreamConfig, wanted: StreamConfig) -> StreamDiff:
    """Compare field by field. Neither is changed."""
    merged = _merged(existing, wanted)
    return StreamDiff(
        merged,
        changes={
            field.name: f"{_text(old)} -> {_text(new)}"
            for field in fields(StreamConfig)
            if (old := getattr(existing, field.name)) != (new := getattr(merged, field.name))
            and (old or new)
        },
        left=_differing(existing, wanted, merged, _LEFT) | _rest(existing, wanted, merged),
        refused=_differing(existing, wanted, existing, _REFUSED),
    )


def _merged(existing: StreamConfig, wanted: StreamConfig) -> StreamConfig:
    schedules = existing.allow_msg_schedules or (
        wanted.allow_msg_schedules and not _no_schedules(existing)
    )
    # A full stream that refuses what is new keeps more than one that drops what is old.
    full = existing.discard == DiscardPolicy.NEW or (
        wanted.discard == DiscardPolicy.NEW and not schedules
    )
    per_subject = _wider(existing.max_msgs_per_subject, wanted.max_msgs_per_subject)
    # A stream that acknowledges before it stores takes no batches (ADR-50).
    batches = existing.persist_mode != PersistMode.ASYNC
    markers = existing.subject_delete_marker_ttl or wanted.subject_delete_marker_ttl
    return replace(
        existing,
        subjects=list(united([*(existing.subjects or ()), *(wanted.subjects or ())])),
        max_age=_wider(existing.max_age, wanted.max_age),
        max_msgs=_wider(existing.max_msgs, wanted.max_msgs),
        max_bytes=_wider(existing.max_bytes, wanted.max_bytes),
        max_msg_size=_wider(existing.max_msg_size, wanted.max_msg_size),
        max_msgs_per_subject=per_subject,
        duplicate_window=max(existing.duplicate_window or 0, wanted.duplicate_window or 0),
        num_replicas=max(existing.num_replicas or 1, wanted.num_replicas or 1),
        discard=DiscardPolicy.NEW if full else existing.discard,
        discard_new_per_subject=existing.discard_new_per_subject
        or (wanted.discard_new_per_subject and full and per_subject > 0),
        # Without acknowledgements no publisher here would know that anything was stored.
        no_ack=existing.no_ack and wanted.no_ack,
        compression=(
            wanted.compression
            if wanted.compression == StoreCompression.S2
            else existing.compression
        ),
        allow_rollup_hdrs=existing.allow_rollup_hdrs
        or (wanted.allow_rollup_hdrs and not existing.deny_purge),
        allow_direct=existing.allow_direct or wanted.allow_direct,
        allow_msg_ttl=existing.allow_msg_ttl or wanted.allow_msg_ttl,
        allow_msg_schedules=schedules,
        allow_atomic=existing.allow_atomic or (wanted.allow_atomic and batches),
        allow_batched=existing.allow_batched or (wanted.allow_batched and batches),
        subject_delete_marker_ttl=markers,
        description=existing.description or wanted.description,
        metadata={**(wanted.metadata or {}), **(existing.metadata or {})} or None,
    )


def _no_schedules(existing: StreamConfig) -> str | None:
    """Return why the server would refuse schedules in a stream."""
    if existing.sources:
        return "the server has no schedules in a stream that copies others"
    if existing.discard == DiscardPolicy.NEW:
        return "the server has no schedules in a stream that refuses what is new when it is full"
    if existing.deny_purge:
        return "schedules are roll-ups, and the server takes none where it denies purging"
    return None


def _differing(
    existing: StreamConfig,
    wanted: StreamConfig,
    after: StreamConfig,
    table: Mapping[str, str],
) -> dict[str, str]:
    """Return those fields of a table that are not what is wanted, and would not become it."""
    return {
        name: _told(existing, wanted, name, advice.format(name=existing.name))
        for name, advice in table.items()
        if not _same(name, getattr(after, name), getattr(wanted, name))
    }


def _rest(existing: StreamConfig, wanted: StreamConfig, merged: StreamConfig) -> dict[str, str]:
    """Tell of what is widened as a rule, and cannot be here."""
    told = {}
    if existing.discard == DiscardPolicy.NEW != wanted.discard:
        told["discard"] = (
            "a full stream refuses what is published, and outboxes wait: "
            f"nats stream edit {existing.name} --discard=old"
        )
    if wanted.allow_rollup_hdrs and not merged.allow_rollup_hdrs:
        told["allow_rollup_hdrs"] = "the server takes no roll-ups where it denies purging"
    if wanted.discard == DiscardPolicy.NEW != merged.discard:
        told["discard"] = "the server cannot refuse what is new in a stream with schedules"
    if wanted.allow_msg_schedules and not merged.allow_msg_schedules:
        told["allow_msg_schedules"] = _no_schedules(existing) or ""
    for name in ("allow_atomic", "allow_batched"):
        if getattr(wanted, name) and not getattr(merged, name):
            told[name] = "a stream that acknowledges before it stores takes no batches (ADR-50)"
    return {name: _told(existing, wanted, name, advice) for name, advice in told.items()}


def _same(name: str, is_: object, wanted: object) -> bool:
    if name == "max_consumers":  # a limit, and a wider one is no harm
        narrow = is_ if isinstance(is_, int) and is_ > 0 else None
        return narrow is None or (isinstance(wanted, int) and 0 < wanted <= narrow)
    if name in _MAY_BE_ANYTHING and not _given(wanted):
        return True
    return (_given(is_) or None) == (_given(wanted) or None)


def _given(value: object) -> object:
    """Return a value without what means: nothing asked."""
    if value in (StoreCompression.NONE, PersistMode.DEFAULT, -1):
        return None
    if hasattr(value, "max_ack_pending"):  # the limits of consumers, each of which may be unset
        return [limit for limit in vars(value).values() if limit and limit > 0]
    return value


def _told(existing: StreamConfig, wanted: StreamConfig, name: str, advice: str) -> str:
    is_, asked = _text(getattr(existing, name)), _text(getattr(wanted, name))
    return f"{name} is {is_}, wanted {asked}: {advice}"


def _wider(existing: Limit, wanted: Limit) -> Limit:
    """Return the limit that keeps more; 0, -1 and None are no limit at all."""
    if not existing or not wanted or existing <= 0:
        return existing
    return wanted if wanted <= 0 else max(existing, wanted)


def _text(value: object) -> str:
    value = getattr(value, "value", value)
    return "not set" if value is None or value == [] else str(value)
