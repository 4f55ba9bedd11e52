"""All contracts of the platform, gathered from the leaves that declare them."""

from typing import Any

from shared.events.contract import Contract
from shared.platform import catalog, credit, notification, scheduler

CONTRACTS: tuple[Contract[Any], ...] = tuple(
    sorted(
        (
            value
            for leaf in (catalog, credit, notification, scheduler)
            for value in vars(leaf).values()
            if isinstance(value, Contract)
        ),
        key=lambda contract: contract.subject,
    )
)
"""Every declared contract, by subject."""
