"""Paths of the first design; what they name lives in `shared.legacy.mappers`."""

from shared.legacy.mappers.base import BaseMapper
from shared.legacy.mappers.crud_mapper import CRUDMapper

__all__ = ["BaseMapper", "CRUDMapper"]
