"""The contracts that services name: one form for each subject, and a stream for all of them."""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

from shared.contracts import describe
from shared.doctor.finding import Findings
from shared.events.streams import overlap
from shared.service.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.doctor.checked_service import CheckedService


def examine_contracts(under_check: Sequence[CheckedService]) -> Findings:
    """Judge what the services declare, without looking at anything that runs."""
    table = describe([checked.service for checked in under_check])
    found = Findings("contracts")
    for subject in table.disputed:
        forms = [row for row in table.rows if row.subject == subject]
        listed = "; ".join(
            f"{row.payload} version {row.version} "
            f"({', '.join([*row.producers, *row.consumers]) or 'declared'})"
            for row in forms
        )
        found.error(
            "contract-disputed",
            f"declared in {len(forms)} forms: {listed}",
            "let all import the same Contract; a new form is version + 1 with an upcaster",
            about=f"subject {subject}",
        )
    _streams(under_check, found)
    return found


def _streams(under_check: Sequence[CheckedService], found: Findings) -> None:
    """Judge the streams: one for each contract, and none takes what another does."""
    for checked in under_check:
        try:
            checked.service.streams_with(checked.settings.nats)
        except DeclarationError as error:
            fix = "declare the streams so that they agree; until then the service does not start"
            found.error("contract-stream", str(error), fix, about=checked.name)
    for one, other in combinations(under_check, 2):
        for mine, theirs in product(one.streams().values(), other.streams().values()):
            both = product(mine.subjects, theirs.subjects)
            if mine.name != theirs.name and any(overlap(a, b) for a, b in both):
                found.error(
                    "contract-stream",
                    f"{mine.name} takes {', '.join(mine.subjects)}, "
                    f"{theirs.name} takes {', '.join(theirs.subjects)}, and a subject is in "
                    "one stream",
                    "give both the same definition: Service(..., streams=STREAMS)",
                    about=f"{one.name} and {other.name}",
                )
