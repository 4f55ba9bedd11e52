"""A service under examination: its declaration and its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.doctor.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.config import ServiceSettings
    from shared.events import Contract, Streams
    from shared.messaging import Subscription
    from shared.service.handlers import Handler
    from shared.service.service import Service

__all__ = ["Patient", "duration"]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class Patient:
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
        return [*self.service.publishes, *(handler.contract for handler in self.service.handlers)]

    def streams(self) -> list[Streams]:
        """Return the streams of its contracts, without those whose subject no stream takes."""
        found = []
        for contract in self.contracts:
            try:
                found.append(contract.stream)
            except ValueError:
                continue
        return list(dict.fromkeys(found))

    def handlers_of(self, stream: Streams) -> Iterable[Handler]:
        """Return the handlers that read from a stream."""
        return (h for h in self.service.handlers if _stream(h.contract) is stream)

    def subscription(self, handler: Handler) -> Subscription:
        """Return what a running service would subscribe with; its handler is never called."""
        return handler.subscription(self.name, _never, handle_batch=_never)


def duration(seconds: float) -> str:
    """Return a duration for people: ``90 s``, ``2 h``, ``7 d``."""
    for unit, size in (("d", _DAY), ("h", _HOUR), ("min", _MINUTE)):
        if seconds >= 2 * size or seconds == size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _stream(contract: Contract[Any]) -> Streams | None:
    try:
        return contract.stream
    except ValueError:
        return None


async def _never(message: object) -> None:
    raise NotImplementedError(f"{message} is only looked at")
