"""A path of the first design: what it names lives in `shared.legacy.mappers.crud_mapper`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.mappers.crud_mapper import (
        CRUDMapper,
        InT,
        ModelT,
        OutT,
        PatchT,
    )

__all__ = [
    "CRUDMapper",
    "InT",
    "ModelT",
    "OutT",
    "PatchT",
]

__getattr__, __dir__ = handed_on(__name__)
