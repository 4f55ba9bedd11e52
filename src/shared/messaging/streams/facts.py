"""JetStream as it is: the server, its streams and their consumers, read and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from nats.js.api import StreamConfig
from pydantic_core import from_json, to_json

from shared.errors import MessageBusError
from shared.messaging.connection.errors import API_TIMEOUT_SECONDS, translated
from shared.messaging.streams.consumers import wanted_of_consumer
from shared.messaging.streams.diff import Difference, compare
from shared.messaging.streams.ensure import stream_config

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.config import NatsSettings
    from shared.events import StreamDefinition
    from shared.messaging.connection.connection import Connection
    from shared.messaging.consuming.subscription import Subscription

__all__ = [
    "ConsumerFacts",
    "Inspection",
    "MonitoringFacts",
    "ReplicaFacts",
    "ServerFacts",
    "StreamFacts",
]

_NANOSECONDS = 1e9
_MONITORING_SECONDS = 2.0
_NOT_FOUND = 404


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


class Inspection:
    """Reads what JetStream has over an open bus.

    Every method raises `MessageBusError` when JetStream does not answer or may not be asked.
    """

    def __init__(self, bus: Connection) -> None:
        self._bus = bus

    async def server(self) -> ServerFacts:
        """Return what the server tells everybody who is connected."""
        answer = await self._ask("INFO")
        if "error" in answer:
            raise MessageBusError(
                f"JetStream refuses: {answer['error'].get('description')}", operation="inspect"
            )
        limits = answer.get("limits") or {}
        version = self._bus.client.connected_server_version
        return ServerFacts(
            version=(version.major, version.minor, version.patch),
            max_payload=self._bus.client.max_payload,
            storage=int(answer.get("storage") or 0),
            max_storage=_limit(limits.get("max_storage")),
            max_ack_pending=_limit(limits.get("max_ack_pending")),
        )

    async def monitoring(self, address: str) -> MonitoringFacts | None:
        """Ask the monitoring endpoint, such as ``http://nats:8222``; None where it is not ours.

        It is ours when it is the server we are connected to. Never raises.
        """
        import httpx  # noqa: PLC0415 - nobody else on this floor needs it

        try:
            async with httpx.AsyncClient(timeout=_MONITORING_SECONDS) as client:
                found = (await client.get(f"{address.rstrip('/')}/varz")).json()
            config = found["jetstream"]["config"]
            if found["server_id"] != self._bus.client._server_info.get("server_id"):  # noqa: SLF001
                return None
            every = 0.0 if config.get("sync_always") else config["sync_interval"] / _NANOSECONDS
            return MonitoringFacts(
                sync_seconds=every,
                storage=int(found["jetstream"]["stats"]["storage"]),
                max_storage=int(config["max_storage"]),
            )
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
            return None

    def host(self) -> str | None:
        """Return the host of the server we are connected to."""
        url = self._bus.client.connected_url
        return None if url is None else url.hostname

    async def holders(self) -> dict[str, tuple[str, ...]]:
        """Return all streams of the account with the subjects they take."""
        found: dict[str, tuple[str, ...]] = {}
        while True:
            page = await self._ask("STREAM.LIST", {"offset": len(found)})
            streams = page.get("streams") or []
            found |= {
                s["config"]["name"]: tuple(s["config"].get("subjects") or ()) for s in streams
            }
            if not streams or len(found) >= page.get("total", 0):
                return found

    async def stream(self, name: str) -> StreamFacts | None:
        """Return a stream; None when there is none."""
        before = _now()
        answer = await self._ask(f"STREAM.INFO.{name}")
        after = _now()
        if (answer.get("error") or {}).get("code") == _NOT_FOUND:
            return None
        state, cluster = answer["state"], answer.get("cluster") or {}
        half = (after - before) / 2
        there = _moment(answer.get("ts"))
        return StreamFacts(
            name=name,
            config=answer["config"],
            messages=int(state["messages"]),
            bytes=int(state["bytes"]),
            first_at=_moment(state["first_ts"]) if state["messages"] else None,
            leader=cluster.get("leader") or (None if cluster.get("replicas") else "alone"),
            replicas=tuple(
                ReplicaFacts(r["name"], bool(r.get("current")), bool(r.get("offline")))
                for r in cluster.get("replicas") or ()
            ),
            clock_ahead_seconds=(there - before - half).total_seconds() if there else 0.0,
            clock_accuracy_seconds=half.total_seconds(),
        )

    async def counts(self, name: str, subjects: str) -> dict[str, int]:
        """Return how many messages a stream has by subject, of those that match."""
        answer = await self._ask(f"STREAM.INFO.{name}", {"subjects_filter": subjects})
        return {s: int(n) for s, n in ((answer.get("state") or {}).get("subjects") or {}).items()}

    async def stored_at(self, name: str, subject: str, sequence: int) -> datetime | None:
        """Return when the first message of a subject from a sequence on was stored, if any."""
        answer = await self._ask(
            f"STREAM.MSG.GET.{name}", {"seq": sequence, "next_by_subj": subject}
        )
        return _moment((answer.get("message") or {}).get("time"))

    async def consumers(self, stream: str) -> dict[str, ConsumerFacts]:
        """Return the consumers of a stream by name; none where there is no stream."""
        found: dict[str, ConsumerFacts] = {}
        while True:
            page = await self._ask(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
            consumers = page.get("consumers") or []
            found |= {c["name"]: _consumer(c) for c in consumers}
            if not consumers or len(found) >= page.get("total", 0):
                return found

    def stream_difference(
        self, facts: StreamFacts, definition: StreamDefinition, settings: NatsSettings
    ) -> Difference:
        """Return what a service with these settings would change of a stream, or could not."""
        version = self._bus.client.connected_server_version
        return compare(
            StreamConfig.from_response(cast("dict[str, Any]", from_json(to_json(facts.config)))),
            stream_config(definition, settings, version),
        )

    def consumer_difference(
        self, facts: ConsumerFacts, subscription: Subscription
    ) -> dict[str, tuple[object, object]]:
        """Return what a subscriber would change of its consumer: by field, as is and as wanted."""
        return {
            name: (facts.config.get(name), wanted)
            for name, wanted in wanted_of_consumer(self._bus, subscription).items()
            if facts.config.get(name) != wanted and (facts.config.get(name) or wanted)
        }

    def ack_pending_of(self, subscription: Subscription) -> int:
        """Return how many unacknowledged messages a subscriber asks its consumer to allow."""
        return cast("int", wanted_of_consumer(self._bus, subscription)["max_ack_pending"])

    async def _ask(self, verb: str, request: Mapping[str, object] | None = None) -> dict[str, Any]:
        # By hand: nats-py drops what it does not know, and tells no clock.
        body = to_json(request) if request else b""
        with translated("inspect", subject=f"$JS.API.{verb}"):
            answer = await self._bus.client.request(
                f"$JS.API.{verb}", body, timeout=API_TIMEOUT_SECONDS
            )
        return cast("dict[str, Any]", from_json(answer.data))


def _consumer(told: dict[str, Any]) -> ConsumerFacts:
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


def _now() -> datetime:
    return datetime.now(UTC)


def _limit(told: object) -> int | None:
    return told if isinstance(told, int) and told > 0 else None


def _moment(text: str | None) -> datetime | None:
    # The server writes nanoseconds, which Python 3.11 cuts to microseconds by itself.
    return None if text is None else datetime.fromisoformat(text)
