"""A path of the first design: what it names lives in `shared.legacy.merged_config`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.merged_config import (
        flatten_config,
        merged_config,
    )

__all__ = [
    "flatten_config",
    "merged_config",
]

__getattr__, __dir__ = handed_on(__name__)
