"""What a durable consumer says it reads, in the metadata that the server keeps for it.

NATS keeps metadata of a consumer since 2.10 (ADR-33), at most 128 KiB in all. The schema goes with
the hash, so that a producer on another version of the code can ask the broker alone who would
break; it goes when the consumer goes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from shared.contracts.schema_diff import find_breaks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.events.contract import Contract

_PREFIX = "glam."
_SCHEMA_LIMIT = 64 * 1024  # bytes: half of what the server takes; others may want to write too


class Verdict(StrEnum):
    """What a payload's form means to a reader.

    ``unknown``: it reads another form and does not say which. ``silent``: it says nothing, as
    those do that take whatever comes.
    """

    SAME = "same"
    FITS = "fits"
    BREAKS = "breaks"
    UNKNOWN = "unknown"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Impact:
    """A verdict, with the reasons where it is not a good one."""

    verdict: Verdict
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reader:
    """A consumer by what it says of itself; `schema` is None if it says only the hash."""

    subject: str
    service: str
    durable: str
    version: int
    readable: tuple[int, ...]
    schema_hash: str
    schema: Mapping[str, Any] | None

    @classmethod
    def of(cls, contract: Contract[Any], *, service: str, durable: str) -> Reader:
        """Return what a service's consumer reads."""
        return cls(
            contract.subject,
            service,
            durable,
            contract.version,
            tuple(contract.readable_versions),
            contract.schema_hash,
            contract.form(),
        )

    def metadata(self) -> dict[str, str]:
        """Return it as the entries of a consumer's metadata; a schema over 64 KiB is left out."""
        schema = json.dumps(self.schema, separators=(",", ":")) if self.schema is not None else ""
        return {
            f"{_PREFIX}subject": self.subject,
            f"{_PREFIX}service": self.service,
            f"{_PREFIX}durable": self.durable,
            f"{_PREFIX}version": str(self.version),
            f"{_PREFIX}reads": ",".join(map(str, self.readable)),
            f"{_PREFIX}schema-hash": self.schema_hash,
            # Empty rather than missing: what was written before must not stay.
            f"{_PREFIX}schema": schema if len(schema) <= _SCHEMA_LIMIT else "",
        }

    @classmethod
    def parse(cls, metadata: Mapping[str, str]) -> Reader | None:
        """Read the metadata of a consumer; None if it does not say what it reads, or not well."""
        said = {name.removeprefix(_PREFIX): value for name, value in metadata.items()}
        try:
            schema = json.loads(said["schema"]) if said.get("schema") else None
            version = int(said["version"])
            return cls(
                said["subject"],
                said["service"],
                said["durable"],
                version,
                tuple(int(each) for each in said["reads"].split(",")),
                said["schema-hash"],
                schema if isinstance(schema, dict) else None,
            )
        except (KeyError, ValueError):
            return None

    def impact(self, contract: Contract[Any]) -> Impact:
        """Say whether this reader can read what a producer of the contract writes."""
        if contract.version == self.version and contract.schema_hash == self.schema_hash:
            return Impact(Verdict.SAME)
        if contract.version < self.version:
            if contract.version in self.readable:
                return Impact(Verdict.FITS)
            known = ", ".join(map(str, self.readable))
            return Impact(
                Verdict.BREAKS,
                (f"it is written in version {contract.version}, and read are {known}",),
            )
        if self.schema is None:
            return Impact(Verdict.UNKNOWN, ("it says the hash of what it reads, not the form",))
        found = find_breaks(written=contract.form(), read=self.schema)
        if found:
            return Impact(Verdict.BREAKS, tuple(map(str, found)))
        return Impact(Verdict.FITS)
