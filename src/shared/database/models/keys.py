"""Primary keys that sort by the time they were made."""

from __future__ import annotations

from typing import Any
from uuid import UUID  # noqa: TC003 - SQLAlchemy reads the annotations

from sqlalchemy import Uuid, text
from sqlalchemy.orm import Mapped, MappedColumn, mapped_column

from shared.context.identifiers import uuid7


def uuid7_key(**options: Any) -> MappedColumn[UUID]:
    """Return a primary key column of UUIDs of version 7 (RFC 9562, section 5.7).

    The application makes them, so a row knows its key before it is saved. Rows inserted by hand get
    theirs from PostgreSQL, whose ``uuidv7()`` came with version 18; on an older one say
    ``server_default=None``.

    Args:
        **options: as ``mapped_column``.
    """
    defaults: dict[str, Any] = {"default": uuid7, "server_default": text("uuidv7()")}
    return mapped_column(Uuid(as_uuid=True), primary_key=True, **{**defaults, **options})


class UUIDv7Mixin:
    """``id`` is a UUID of version 7: new rows go to the end of the index, and sort by age."""

    id: Mapped[UUID] = uuid7_key(sort_order=-1)
