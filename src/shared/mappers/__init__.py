"""Between the rows of the database and the schemas of the API."""

from shared.mappers.base import BaseMapper
from shared.mappers.crud_mapper import CRUDMapper

__all__ = ["BaseMapper", "CRUDMapper"]
