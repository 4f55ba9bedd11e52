"""The inbox: what a subscriber has handled, so that it handles it once.

How the row gets into the transaction: a handler's unit of work opens its session, which sends
nothing yet. `Inbox.accept` is the first to want something, so its INSERT begins the transaction,
and one message takes to PostgreSQL BEGIN, the session setup (whose tenant's transaction it is) and
the INSERT: one round trip (`shared.database.engine.first_statement`). What the handler does comes
after it, in the same transaction, and leaving the unit of work commits both or neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.util import greenlet_spawn

from shared.config import ConfigError, Mistake
from shared.database import translate_errors
from shared.database.engine.first_statement import execute_first

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from shared.config import DeliverySettings


_ACCEPT = "INSERT INTO inbox (subscriber, message_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"


class Inbox:
    """Remembers handled messages, in the very transaction that handles them.

    >>> async with units() as uow:
    ...     await Inbox(uow.session).accept("billing", "event-1")
    True
    >>> async with units() as uow:
    ...     await Inbox(uow.session).accept("billing", "event-1")
    False

    Args:
        session: of the handler's unit of work.
    """

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
        with translate_errors("inbox"):
            changed = await greenlet_spawn(
                execute_first, self._session.sync_session, _ACCEPT, subscriber, message_id
            )
        return changed > 0


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
