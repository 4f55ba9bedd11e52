"""A path of the first design: what it names lives in `shared.legacy.mappers.base`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.mappers.base import (
        BaseMapper,
        CreateT,
        ModelT,
        ResponseT,
        UpdateT,
    )

__all__ = [
    "BaseMapper",
    "CreateT",
    "ModelT",
    "ResponseT",
    "UpdateT",
]

__getattr__, __dir__ = handed_on(__name__)
