"""The inbox: what a subscriber has handled, so that it handles it once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.util import greenlet_spawn

from shared.config import ConfigError, Mistake
from shared.database import translate_errors
from shared.database.engine.session_setup import count_changed

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from shared.config import DeliverySettings

__all__ = ["Inbox", "check_inbox_retention"]

# Every handled message pays for this statement: it goes to the driver as it is, and with BEGIN.
_ACCEPT = "INSERT INTO inbox (subscriber, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"


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
        session = self._session.sync_session

        def accept() -> bool:
            return count_changed(session, _ACCEPT, subscriber, message_id) > 0

        with translate_errors("inbox"):
            return await greenlet_spawn(accept)


def check_inbox_retention(
    settings: DeliverySettings, *, service: str, stream: str, max_age_seconds: float
) -> None:
    """Refuse an inbox that forgets a message while its stream can still deliver it again.

    A stream that keeps its messages for ever (``max_age_seconds`` 0) is let through: what is
    delivered again after the retention takes effect again.

    Raises:
        ConfigError: ``delivery.inbox_retention_hours`` is shorter than the stream's memory.
    """
    needed = max_age_seconds / 3600
    if settings.inbox_retention_hours < needed:
        raise ConfigError(
            service,
            [
                Mistake(
                    "delivery.inbox_retention_hours",
                    f"the inbox forgets after {settings.inbox_retention_hours:g} hours, but stream "
                    f"{stream} may deliver a message for {needed:g}; set at least {needed:g}",
                )
            ],
        )
