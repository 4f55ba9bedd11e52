"""A path of the first design; `shared.legacy.table` says where its names live."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.legacy.mappers.base import (
        BaseMapper,
    )
    from shared.legacy.mappers.crud_mapper import (
        CRUDMapper,
    )

__all__ = [
    "BaseMapper",
    "CRUDMapper",
]

__getattr__, __dir__ = handed_on(__name__)
