"""What the server says of itself, of a stream, of a consumer, and of a message."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


_NANOSECONDS = 1e9


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server we are connected to, and what its account has; None is: no limit."""

    version: tuple[int, int, int]
    max_payload: int
    storage: int
    max_storage: int | None
    max_ack_pending: int | None


@dataclass(frozen=True, slots=True)
class MonitoringFacts:
    """What only the server's monitoring endpoint tells. ``sync_seconds`` is 0 for always."""

    sync_seconds: float
    storage: int
    max_storage: int


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """A copy of a stream on another server than the leader's."""

    name: str
    current: bool
    offline: bool


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """A stream. ``clock_ahead_seconds`` is the server's clock less ours, known to ``+- accuracy``.

    ``first_at`` is when its oldest message was stored, None when it is empty. ``leader`` is None
    when nobody leads it.
    """

    name: str
    config: Mapping[str, Any]
    messages: int
    bytes: int
    first_at: datetime | None
    last_sequence: int
    leader: str | None
    replicas: tuple[ReplicaFacts, ...]
    clock_ahead_seconds: float
    clock_accuracy_seconds: float

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects it takes."""
        return tuple(self.config.get("subjects") or ())

    @property
    def max_age_seconds(self) -> float:
        """How long it keeps a message; 0 is for ever."""
        return float(self.config.get("max_age") or 0) / _NANOSECONDS

    @property
    def dedupe_seconds(self) -> float:
        """For how long it knows a message id again."""
        return float(self.config.get("duplicate_window") or 0) / _NANOSECONDS

    @property
    def copies(self) -> int:
        """How many servers are to keep it."""
        return int(self.config.get("num_replicas") or 1)

    @property
    def retention(self) -> str:
        """When it lets messages go by itself: ``limits``, ``interest`` or ``workqueue``."""
        return str(self.config.get("retention") or "limits")

    @property
    def atomic(self) -> bool:
        """Whether it takes atomic batches (ADR-50)."""
        return bool(self.config.get("allow_atomic"))

    @property
    def rollup(self) -> bool:
        """Whether a message may replace the others of its subject."""
        return bool(self.config.get("allow_rollup_hdrs"))


@dataclass(frozen=True, slots=True)
class ConsumerFacts:
    """A consumer. ``pinned`` is the one that has an ordered consumer's messages, if any."""

    stream: str
    name: str
    config: Mapping[str, Any]
    pending: int
    ack_pending: int
    redelivered: int
    waiting: int
    delivered: int
    delivered_stream_sequence: int
    ack_floor: int
    paused_seconds: float
    pinned: str | None

    @property
    def max_ack_pending(self) -> int:
        """How many messages may be out unacknowledged; -1 is any number."""
        return int(self.config.get("max_ack_pending") or -1)

    @property
    def filters(self) -> tuple[str, ...]:
        """The subjects it reads; without any it reads all of its stream."""
        single = self.config.get("filter_subject")
        return tuple(self.config.get("filter_subjects") or ()) or ((single,) if single else ())

    @property
    def metadata(self) -> Mapping[str, str]:
        """What is written on it for others to read."""
        return self.config.get("metadata") or {}


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as its stream holds it; read for its headers alone it has no ``body``."""

    sequence: int
    headers: Mapping[str, str]
    stored_at: datetime
    size_bytes: int
    body: bytes = b""


def stream_facts(
    name: str, told: Mapping[str, Any], asked: datetime, heard: datetime
) -> StreamFacts:
    """Read what the server tells of a stream, asked and heard at these times of our clock."""
    state, cluster = told["state"], told.get("cluster") or {}
    half = (heard - asked) / 2
    there = moment_of(told.get("ts"))
    return StreamFacts(
        name=name,
        config=told["config"],
        messages=int(state["messages"]),
        bytes=int(state["bytes"]),
        first_at=moment_of(state["first_ts"]) if state["messages"] else None,
        last_sequence=int(state["last_seq"]),
        leader=cluster.get("leader") or (None if cluster.get("replicas") else "alone"),
        replicas=tuple(
            ReplicaFacts(r["name"], bool(r.get("current")), bool(r.get("offline")))
            for r in cluster.get("replicas") or ()
        ),
        clock_ahead_seconds=(there - asked - half).total_seconds() if there else 0.0,
        clock_accuracy_seconds=half.total_seconds(),
    )


def consumer_facts(told: Mapping[str, Any]) -> ConsumerFacts:
    """Read what the server tells of a consumer."""
    groups = told.get("priority_groups") or ()
    return ConsumerFacts(
        stream=told["stream_name"],
        name=told["name"],
        config=told["config"],
        pending=int(told["num_pending"]),
        ack_pending=int(told["num_ack_pending"]),
        redelivered=int(told["num_redelivered"]),
        waiting=int(told["num_waiting"]),
        delivered=int(told["delivered"]["consumer_seq"]),
        delivered_stream_sequence=int(told["delivered"]["stream_seq"]),
        ack_floor=int(told["ack_floor"]["stream_seq"]),
        paused_seconds=(
            float(told.get("pause_remaining") or 0) / _NANOSECONDS if told.get("paused") else 0.0
        ),
        pinned=next((g["pinned_client_id"] for g in groups if g.get("pinned_client_id")), None),
    )


def moment_of(text: str | None) -> datetime | None:
    """Read a time as the server writes it."""
    # The server writes nanoseconds, which Python 3.11 cuts to microseconds by itself.
    return None if text is None else datetime.fromisoformat(text)
