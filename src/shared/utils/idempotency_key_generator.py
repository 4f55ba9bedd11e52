"""A path of the first design: what it names lives in `shared.idempotency`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.idempotency import (
        generate_idempotency_key,
    )

__all__ = [
    "generate_idempotency_key",
]

__getattr__, __dir__ = handed_on(__name__)
