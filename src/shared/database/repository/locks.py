"""Rows kept from others until the transaction ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Select

    from shared.database.base import Base


@dataclass(frozen=True, slots=True)
class RowLock:
    """How the rows that are read get locked; ``RowLock()`` is ``FOR UPDATE``.

    https://www.postgresql.org/docs/18/explicit-locking.html#LOCKING-ROWS

    Args:
        nowait: a row that another transaction holds is a retryable DatabaseError at once, with
            ``error_code`` 55P03, rather than after the lock timeout.
        skip_locked: leave out rows that another transaction holds.
        key_share: weaker: rows may be referenced by others meanwhile (``FOR NO KEY UPDATE``; with
            ``read``, ``FOR KEY SHARE``).
        read: weaker: others may read under the same lock, and none may write (``FOR SHARE``).
    """

    nowait: bool = False
    skip_locked: bool = False
    key_share: bool = False
    read: bool = False

    def __post_init__(self) -> None:
        if self.nowait and self.skip_locked:
            raise ValueError("nowait and skip_locked exclude each other")

    def on(self, query: Select[Any], model: type[Base]) -> Select[Any]:
        """Return the query with the rows of ``model`` locked, and of nothing it joins."""
        return query.with_for_update(
            nowait=self.nowait,
            skip_locked=self.skip_locked,
            key_share=self.key_share,
            read=self.read,
            of=model,
        ).execution_options(populate_existing=True)
