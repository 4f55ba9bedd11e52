"""A path of the first design: what it names lives in `shared.legacy.api.middleware`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.api.middleware import (
        APIMiddleware,
        setup_middleware,
    )

__all__ = [
    "APIMiddleware",
    "setup_middleware",
]

__getattr__, __dir__ = handed_on(__name__)
