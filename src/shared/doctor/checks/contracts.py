"""The contracts that services name: one form for each subject, and a stream for all of them."""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

from shared.contracts import describe
from shared.doctor.finding import Finding, Severity
from shared.events.streams import overlap
from shared.service.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.doctor.patient import Patient

__all__ = ["examine_contracts"]


def examine_contracts(patients: Sequence[Patient]) -> list[Finding]:
    """Judge what the services declare, without looking at anything that runs."""
    table = describe([patient.service for patient in patients])
    found = []
    for subject in table.disputed:
        forms = [row for row in table.rows if row.subject == subject]
        told = "; ".join(
            f"{row.payload} version {row.version} "
            f"({', '.join([*row.producers, *row.consumers]) or 'declared'})"
            for row in forms
        )
        found.append(
            Finding(
                "contract-disputed",
                Severity.ERROR,
                f"subject {subject}",
                f"declared in {len(forms)} forms: {told}",
                "let all import the same Contract; a new form is version + 1 with an upcaster",
            )
        )
    return found + _streams(patients)


def _streams(patients: Sequence[Patient]) -> list[Finding]:
    """Judge the streams: one for each contract, and none takes what another does."""
    found = []
    for patient in patients:
        try:
            patient.service.streams_with(patient.settings.nats)
        except DeclarationError as error:
            fix = "declare the streams as told; until then the service does not start"
            found.append(Finding("contract-stream", Severity.ERROR, patient.name, str(error), fix))
    for one, other in combinations(patients, 2):
        for mine, theirs in product(one.streams().values(), other.streams().values()):
            both = product(mine.subjects, theirs.subjects)
            if mine.name != theirs.name and any(overlap(a, b) for a, b in both):
                found.append(
                    Finding(
                        "contract-stream",
                        Severity.ERROR,
                        f"{one.name} and {other.name}",
                        f"{mine.name} takes {', '.join(mine.subjects)}, "
                        f"{theirs.name} takes {', '.join(theirs.subjects)}, and a subject is in "
                        "one stream",
                        "give both the same definition: Service(..., streams=STREAMS)",
                    )
                )
    return found
