"""The inbox: what a subscriber has handled, so that it handles it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.dialects.postgresql import insert

from shared.database import translate_errors
from shared.delivery.tables import InboxRow

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["Inbox"]


class Inbox:
    """Remembers handled messages, in the very transaction that handles them."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def accept(self, subscriber: str, message_id: str) -> bool:
        """Note the message as handled; return False when it was so already.

        While another transaction handles the same message, this waits for its end: if it commits
        the answer is False, if it rolls back the message is ours. The note is gone again when this
        transaction rolls back.

        Raises:
            DatabaseError: retryable; among others when the wait exceeds the lock timeout.
        """
        note = insert(InboxRow).values(subscriber=subscriber, message_id=message_id)
        with translate_errors("inbox"):
            taken = await self._session.scalar(
                note.on_conflict_do_nothing().returning(InboxRow.message_id)
            )
        return taken is not None
