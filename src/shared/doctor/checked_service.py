"""A service under check: its declaration and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.doctor.finding import Severity
from shared.events import StreamError
from shared.service.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.config import ServiceSettings
    from shared.events import Contract, StreamDefinition
    from shared.messaging import Subscription
    from shared.service.handlers import Handler
    from shared.service.service import Service


_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class CheckedService:
    """A service and its settings.

    ``target`` is what to type for it after ``glam run``, ``replicas`` how many of it run, as far as
    is known.
    """

    service: Service[Any]
    settings: ServiceSettings
    target: str
    replicas: int = 1

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    @property
    def schema(self) -> str:
        """Where its tables are."""
        return self.settings.database.schema_name or self.service.schema

    @property
    def in_production(self) -> bool:
        """Whether it runs anywhere but on a developer's machine."""
        return self.settings.environment != "dev"

    def grave(self, severity: Severity) -> Severity:
        """Return a severity that a developer's machine need not mind: a note there."""
        return severity if self.in_production else Severity.NOTE

    @property
    def contracts(self) -> list[Contract[Any]]:
        """What it publishes and handles."""
        return list(self.service.contracts)

    def stream_of(self, contract: Contract[Any]) -> StreamDefinition | None:
        """Return the stream of one of its contracts; None when they contradict each other."""
        try:
            return self.service.streams_with(self.settings.nats).holding(contract.subject)
        except (DeclarationError, StreamError):
            return None

    def streams(self) -> dict[str, StreamDefinition]:
        """Return the streams of its contracts by name."""
        found = [self.stream_of(contract) for contract in self.contracts]
        return {stream.name: stream for stream in found if stream is not None}

    def publishes_to(self, stream: str) -> bool:
        """Tell whether one of its contracts goes into a stream."""
        return any(
            (found := self.stream_of(contract)) is not None and found.name == stream
            for contract in self.service.publishes
        )

    def handlers_of(self, stream: str) -> Iterable[Handler]:
        """Return the handlers that read from a stream."""
        for handler in self.service.handlers:
            found = self.stream_of(handler.contract)
            if found is not None and found.name == stream:
                yield handler

    def subscription(self, handler: Handler) -> Subscription:
        """Return what a running service would subscribe with; its handler is never called."""
        stream = self.stream_of(handler.contract)
        return handler.subscription(
            self.name,
            _never,
            stream=stream.name if stream is not None else "",
            handle_batch=_never,
        )


def duration(seconds: float) -> str:
    """Return a duration for people: ``90 s``, ``2 h``, ``7 d``."""
    for unit, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= 2 * size or seconds == size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


async def _never(message: object) -> None:
    raise NotImplementedError(f"{message} is only looked at")
