"""Reading and writing models: `Repository`, its filters, pages and bulk writes."""

from shared.database.repository.repository import Repository, T

__all__ = ["Repository", "T"]
