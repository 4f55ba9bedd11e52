"""The contracts that services name: one form for each subject, and a stream for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.contracts import describe
from shared.doctor.finding import Finding, Severity

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
    found += [
        Finding(
            "contract-stream",
            Severity.ERROR,
            f"subject {row.subject}",
            f"no stream takes it; {', '.join([*row.producers, *row.consumers])} declare it",
            "use a domain of the table in shared.events.streams, or add this one there",
        )
        for row in table.rows
        if row.stream is None
    ]
    return found
