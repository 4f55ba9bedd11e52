"""Who says what to whom: every contract, with the services that speak and hear it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from shared.events.streams import CONVENTION, StreamError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shared.events.contract import Contract
    from shared.events.streams import StreamTable


class DeclaredHandler(Protocol):
    """What the table needs of a handler."""

    @property
    def name(self) -> str:
        """Its name within its service."""

    @property
    def contract(self) -> Contract[Any]:
        """What it handles."""

    def durable(self, service: str) -> str:
        """Return the name of its durable consumer."""


class DeclaredService(Protocol):
    """What the table needs of a service; `shared.service.Service` has it."""

    @property
    def name(self) -> str:
        """The service's name."""

    @property
    def publishes(self) -> Sequence[Contract[Any]]:
        """What it declares to publish."""

    @property
    def streams(self) -> StreamTable:
        """Its streams, with those that its contracts name."""

    @property
    def handlers(self) -> Sequence[DeclaredHandler]:
        """What handles its messages."""


@dataclass(frozen=True, slots=True)
class ContractRow:
    """One contract, the services that publish it and those that handle it, by name.

    `stream` is None when no stream is known to hold the subject.
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


def describe(
    services: Iterable[DeclaredService] = (), *, declared: Iterable[Contract[Any]] = ()
) -> ContractTable:
    """Return the contracts of the services given, each form once.

    A contract is known by being named: in a service's ``publishes``, or by one of its handlers.
    Nothing registers itself when it is imported. Those that none of the services names and that
    are to be there all the same are given as `declared`.
    """
    producers: dict[Contract[Any], set[str]] = {contract: set() for contract in declared}
    consumers: dict[Contract[Any], set[str]] = {}
    tables: dict[Contract[Any], StreamTable] = {}
    for service in services:
        streams = service.streams
        for contract in service.publishes:
            producers.setdefault(contract, set()).add(service.name)
            tables[contract] = streams
        for handler in service.handlers:
            consumers.setdefault(handler.contract, set()).add(service.name)
            tables.setdefault(handler.contract, streams)
    known = {*producers, *consumers}
    order = sorted(known, key=lambda c: (c.subject, c.version, c.payload.__qualname__))
    return ContractTable(
        tuple(
            ContractRow(
                contract,
                _stream(contract, tables.get(contract, CONVENTION)),
                tuple(sorted(producers.get(contract, ()))),
                tuple(sorted(consumers.get(contract, ()))),
            )
            for contract in order
        )
    )


def _stream(contract: Contract[Any], streams: StreamTable) -> str | None:
    try:
        return streams.of(contract).name
    except StreamError:
        return None
