"""All contracts of the platform, gathered from the leaves that declare them."""

from typing import Any

from shared.events.contract import Contract
from shared.platform import catalog, credit, notification, scheduler


def contracts() -> tuple[Contract[Any], ...]:
    """Return every declared contract, sorted by subject."""
    declared = [
        value
        for leaf in (catalog, credit, notification, scheduler)
        for value in vars(leaf).values()
        if isinstance(value, Contract)
    ]
    return tuple(sorted(declared, key=lambda contract: contract.subject))
