"""A path of the first design: what it names lives in `shared.legacy.messaging.dependencies`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.messaging.dependencies import (
        DepKeys,
        ServiceDependencies,
        T,
    )

__all__ = [
    "DepKeys",
    "ServiceDependencies",
    "T",
]

__getattr__, __dir__ = handed_on(__name__)
