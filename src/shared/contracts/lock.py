"""The contracts as they were when they were last agreed on, and what was changed since.

A lock is a file beside the code, under version control: every contract's form, with who spoke it.
`compare_contracts` says which changes break someone, and where in the code they are. Both
directions count:

- what was written before is still in the stream, and is read by the new form;
- what is written from now on meets readers of the form before.

The second is left out for a contract that is only handled here: its messages are written elsewhere.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from shared.contracts.schema_diff import Break, find_breaks
from shared.contracts.source import Place, place_of_contract, place_of_field
from shared.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from shared.contracts.table import ContractRow, ContractTable
    from shared.events.contract import Contract

_FORMAT = 1


class LockError(ValidationError):
    """A lock file is none, or of another format; the message says what to do."""


class ChangeKind(StrEnum):
    """What a change means for those who speak the contract."""

    BREAKING = "breaking"
    COMPATIBLE = "compatible"


@dataclass(frozen=True, slots=True)
class ContractChange:
    """One contract that is no longer as it was locked.

    `reasons` say why, `place` is the line to change, and `remedy` is what to do there.
    """

    subject: str
    version: int
    kind: ChangeKind
    what: str
    reasons: tuple[str, ...] = ()
    place: Place | None = None
    remedy: str = ""

    @property
    def breaking(self) -> bool:
        """Whether someone cannot read what another writes."""
        return self.kind is ChangeKind.BREAKING


@dataclass(frozen=True, slots=True)
class LockedContract:
    """A contract as it was: its payload's name and form, and who spoke it."""

    subject: str
    version: int
    payload: str
    schema: Mapping[str, Any]
    producers: tuple[str, ...] = ()
    consumers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContractLock:
    """What a lock file holds, by subject and version."""

    contracts: Mapping[tuple[str, int], LockedContract] = field(default_factory=dict)

    @classmethod
    def of(cls, table: ContractTable) -> ContractLock:
        """Lock a table's contracts.

        Raises:
            LockError: two types claim the same version of a subject.
        """
        contracts: dict[tuple[str, int], LockedContract] = {}
        for row in table.rows:
            key = (row.subject, row.version)
            locked = _locked(row)
            other = contracts.get(key)
            if other is not None:
                if other.schema != locked.schema:
                    raise LockError(
                        f"{row.subject} has two forms of version {row.version}: {other.payload} "
                        f"and {locked.payload}; give one of them another version"
                    )
                locked = LockedContract(
                    row.subject,
                    row.version,
                    min(other.payload, locked.payload),
                    locked.schema,
                    tuple(sorted({*other.producers, *locked.producers})),
                    tuple(sorted({*other.consumers, *locked.consumers})),
                )
            contracts[key] = locked
        return cls(contracts)

    @classmethod
    def decode(cls, text: str) -> ContractLock:
        """Read a lock file.

        Raises:
            LockError: it is not a lock file, or of a newer format.
        """
        try:
            document = json.loads(text)
            if document["format"] != _FORMAT:
                raise LockError(
                    f"the lock is of format {document['format']}, and this glam reads {_FORMAT}: "
                    "update glam-shared, or write the lock again"
                )
            contracts = {
                (subject, int(version)): LockedContract(
                    subject,
                    int(version),
                    entry["payload"],
                    entry["schema"],
                    tuple(entry["producers"]),
                    tuple(entry["consumers"]),
                )
                for subject, versions in document["contracts"].items()
                for version, entry in versions.items()
            }
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise LockError(
                f"the lock file is not a lock of contracts ({type(error).__name__}: {error}): "
                "take it from version control again, or write it with `glam contracts lock`"
            ) from error
        return cls(contracts)

    def encode(self) -> str:
        """Return the lock file: the same text for the same contracts."""
        contracts: dict[str, dict[str, Any]] = {}
        for (subject, version), locked in sorted(self.contracts.items()):
            contracts.setdefault(subject, {})[str(version)] = {
                "payload": locked.payload,
                "producers": list(locked.producers),
                "consumers": list(locked.consumers),
                "schema": locked.schema,
            }
        document = {"format": _FORMAT, "contracts": contracts}
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def compare_contracts(lock: ContractLock, table: ContractTable) -> tuple[ContractChange, ...]:
    """Return what was changed since the lock was written; breaking changes first.

    Raises:
        LockError: two types claim the same version of a subject.
    """
    present = ContractLock.of(table)
    rows = {(row.subject, row.version): row for row in table.rows}
    changes: list[ContractChange] = []
    for key, before in lock.contracts.items():
        if key in rows:
            changes += _changed(before, present.contracts[key], rows[key].contract)
        else:
            changes.append(_gone(before, [row for row in table.rows if row.subject == key[0]]))
    followed = {subject for subject, _ in lock.contracts.keys() - rows.keys()}
    changes += [
        ContractChange(
            *key,
            ChangeKind.COMPATIBLE,
            "is new",
            place=place_of_contract(rows[key].contract),
        )
        for key in rows.keys() - lock.contracts.keys()
        if key[0] not in followed
    ]
    return tuple(sorted(changes, key=lambda c: (not c.breaking, c.subject, c.version)))


def _locked(row: ContractRow) -> LockedContract:
    payload = row.contract.payload
    return LockedContract(
        row.subject,
        row.version,
        f"{payload.__module__}.{payload.__qualname__}",
        row.contract.form(),
        row.producers,
        row.consumers,
    )


def _changed(
    before: LockedContract, after: LockedContract, contract: Contract[Any]
) -> Iterable[ContractChange]:
    """Return what became of a contract that kept its version."""
    about = (after.subject, after.version)
    if before.schema == after.schema:
        if before != after:
            yield ContractChange(*about, ChangeKind.COMPATIBLE, _speakers(before, after))
        return
    backward = find_breaks(written=before.schema, read=after.schema)
    producers = {*before.producers, *after.producers}
    consumers = {*before.consumers, *after.consumers}
    forward: Sequence[Break] = ()
    if producers or not consumers:
        forward = find_breaks(written=after.schema, read=before.schema)
    if not backward and not forward:
        place = place_of_field(contract.payload, ())
        yield ContractChange(
            *about, ChangeKind.COMPATIBLE, "has another form, which fits", place=place
        )
        return
    readers = ", ".join(sorted(consumers)) or "its readers"
    writers = ", ".join(sorted(producers)) or "its producers"
    places = [place_of_field(contract.payload, each.path) for each in (*backward, *forward)]
    reasons = [f"{each} (in messages that {writers} wrote before)" for each in backward]
    reasons += [f"{each} (for {readers}, until deployed anew)" for each in forward]
    told = (
        f"{place}: {reason}" if place is not None else reason
        for place, reason in zip(places, reasons, strict=True)
    )
    yield ContractChange(
        *about,
        ChangeKind.BREAKING,
        "has another form, and its version is the same",
        tuple(told),
        places[0],
        _remedy(contract, before.version, backward, forward, bump=True),
    )


def _gone(before: LockedContract, rows: Sequence[ContractRow]) -> ContractChange:
    """Return what became of a contract whose subject has other versions now, or none."""
    about = (before.subject, before.version)
    if not rows:
        spoken = ", ".join(sorted({*before.producers, *before.consumers}))
        return ContractChange(
            *about,
            ChangeKind.BREAKING,
            f"is declared no more{f', and {spoken} spoke it' if spoken else ''}",
            remedy=f"declare it again: Contract({before.subject!r}, ...) of {before.payload}",
        )
    newest = max(rows, key=lambda row: row.version)
    contract = newest.contract
    place = place_of_contract(contract)
    if newest.version < before.version:
        return ContractChange(
            *about,
            ChangeKind.BREAKING,
            f"went back to version {newest.version}",
            (f"messages of version {before.version} are in the stream already",),
            place,
            f"let it be version {before.version}, or {before.version + 1} if its form is another",
        )
    if before.version in contract.readable_versions:
        return ContractChange(
            *about,
            ChangeKind.COMPATIBLE,
            f"is version {newest.version} now, and {before.version} is read through its steps",
            place=place,
        )
    missing = contract.readable_versions[0] - 1
    backward = find_breaks(written=before.schema, read=contract.form())
    forward = find_breaks(written=contract.form(), read=before.schema)
    return ContractChange(
        *about,
        ChangeKind.BREAKING,
        f"is version {newest.version} now, and nothing takes {missing} to {missing + 1}",
        (f"messages of version {before.version} in the stream cannot be read any more",),
        place,
        _remedy(contract, missing, backward, forward, bump=False),
    )


def _speakers(before: LockedContract, after: LockedContract) -> str:
    said: list[str] = []
    for what, ours, theirs in (
        ("publishes", after.producers, before.producers),
        ("handles", after.consumers, before.consumers),
    ):
        said += [f"{name} {what} it now" for name in sorted({*ours} - {*theirs})]
        said += [f"{name} {what} it no more" for name in sorted({*theirs} - {*ours})]
    if not said:
        return f"is {after.payload} now"
    return ", ".join(said)


# -- what to do ----------------------------------------------------------------------------------


def _remedy(
    contract: Contract[Any],
    version: int,
    backward: Sequence[Break],
    forward: Sequence[Break],
    *,
    bump: bool,
) -> str:
    """Return the code that makes a change one that everybody can follow."""
    place = place_of_contract(contract)
    name = place.name if place is not None and place.name else "CONTRACT"
    lines = []
    if bump:
        where = f"  # {place}" if place is not None else ""
        payload = contract.payload.__name__
        lines += [
            f"{name} = Contract({contract.subject!r}, {payload}, version={version + 1}){where}",
            "",
        ]
    lines += [
        f"@{name}.upcasts(from_version={version})",
        f"def from_version_{version}(payload: dict[str, Any]) -> dict[str, Any]:",
    ]
    added = [each.path[0] for each in backward if each.lacking and len(each.path) == 1]
    removed = [each.path[0] for each in forward if each.lacking and len(each.path) == 1]
    removed = [each for each in removed if each not in contract.schema().get("properties", {})]
    if len(added) == len(removed) == 1:
        lines.append(f'    payload["{added[0]}"] = payload.pop("{removed[0]}")')
        return "\n".join([*lines, "    return payload"])
    entries = "".join(f', "{field}": ...' for field in added)
    return "\n".join([*lines, f"    return {{**payload{entries or ', ...'}}}"])
