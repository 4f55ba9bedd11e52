"""JetStream as it is, and as services want it: read and never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from nats.js.api import StreamConfig
from pydantic_core import from_json, to_json

from shared.messaging.connection.client import server_id
from shared.messaging.streams.consumers import wanted_of_consumer
from shared.messaging.streams.diff import StreamDiff, compare
from shared.messaging.streams.ensure import stream_config
from shared.messaging.streams.facts import ConsumerFacts, MonitoringFacts, ServerFacts, StreamFacts
from shared.messaging.streams.store import StreamStore

if TYPE_CHECKING:
    from shared.config import NatsSettings
    from shared.events import StreamDefinition
    from shared.messaging.consuming.subscription import Subscription


_NANOSECONDS = 1e9
_MONITORING_SECONDS = 2.0


class Inspection(StreamStore):
    """What an examination asks besides: the server itself, and what differs from what is wanted."""

    async def server(self) -> ServerFacts:
        """Return what the server tells everybody who is connected."""
        answer = await self._ask("INFO")
        limits = answer.get("limits") or {}
        return ServerFacts(
            version=self.server_version,
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
            if found["server_id"] != server_id(self._bus.client):
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

    def stream_diff(
        self, facts: StreamFacts, definition: StreamDefinition, settings: NatsSettings
    ) -> StreamDiff:
        """Return what a service with these settings would change of a stream, or could not."""
        version = self._bus.client.connected_server_version
        return compare(
            StreamConfig.from_response(cast("dict[str, Any]", from_json(to_json(facts.config)))),
            stream_config(definition, settings, version),
        )

    def consumer_diff(
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


def _limit(told: object) -> int | None:
    return told if isinstance(told, int) and told > 0 else None
