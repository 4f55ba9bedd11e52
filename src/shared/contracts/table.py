"""Who says what to whom: every contract, with the services that speak and hear it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from shared.platform.declared import contracts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shared.events.contract import Contract


class Listener(Protocol):
    """What the table needs of a handler."""

    @property
    def name(self) -> str:
        """Its name within its service."""

    @property
    def contract(self) -> Contract[Any]:
        """What it handles."""

    def durable(self, service: str) -> str:
        """Return the name of its durable consumer."""


class Speaker(Protocol):
    """What the table needs of a service; `shared.service.Service` has it."""

    @property
    def name(self) -> str:
        """The service's name."""

    @property
    def publishes(self) -> Sequence[Contract[Any]]:
        """What it declares to publish."""

    @property
    def handlers(self) -> Sequence[Listener]:
        """What handles its messages."""


@dataclass(frozen=True, slots=True)
class ContractRow:
    """One contract, the services that publish it and those that handle it, by name.

    `stream` is None when the table of streams does not know the subject's domain.
    """

    contract: Contract[Any]
    stream: str | None
    producers: tuple[str, ...]
    consumers: tuple[str, ...]

    @property
    def subject(self) -> str:
        """The contract's subject."""
        return self.contract.subject

    @property
    def payload(self) -> str:
        """The name of the payload's type."""
        return self.contract.payload.__qualname__

    @property
    def version(self) -> int:
        """The contract's version."""
        return self.contract.version


@dataclass(frozen=True, slots=True)
class ContractTable:
    """The rows, by subject and version."""

    rows: tuple[ContractRow, ...]

    @property
    def disputed(self) -> tuple[str, ...]:
        """Subjects of which more than one form is declared: two versions, or two types."""
        count = Counter(row.subject for row in self.rows)
        return tuple(sorted(subject for subject, forms in count.items() if forms > 1))


def describe(services: Iterable[Speaker] = ()) -> ContractTable:
    """Return the contracts of the platform and of the services given, each form once.

    A contract is known by being named: in a service's ``publishes``, or by one of its handlers.
    Nothing registers itself when it is imported.
    """
    producers: dict[Contract[Any], set[str]] = {contract: set() for contract in contracts()}
    consumers: dict[Contract[Any], set[str]] = {}
    for service in services:
        for contract in service.publishes:
            producers.setdefault(contract, set()).add(service.name)
        for handler in service.handlers:
            consumers.setdefault(handler.contract, set()).add(service.name)
    known = {*producers, *consumers}
    order = sorted(known, key=lambda c: (c.subject, c.version, c.payload.__qualname__))
    return ContractTable(
        tuple(
            ContractRow(
                contract,
                _stream(contract),
                tuple(sorted(producers.get(contract, ()))),
                tuple(sorted(consumers.get(contract, ()))),
            )
            for contract in order
        )
    )


def _stream(contract: Contract[Any]) -> str | None:
    try:
        return contract.stream.value
    except ValueError:
        return None
