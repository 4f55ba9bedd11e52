"""Sending a mail once: what is written down before, and after, the mail server was spoken to."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import NAMESPACE_OID, UUID, uuid5

from sqlalchemy import func

from services.notification.mailer import Mailer, MailRefusedError
from services.notification.models import Notification, NotificationStatus
from services.notification.templates import Templates
from shared.database import tenant_scope
from shared.delivery import UnitOfWork, UnitOfWorkFactory
from shared.errors import ConflictError
from shared.events import Envelope
from shared.events.notification import (
    EMAIL_FAILED,
    EMAIL_SENT,
    EmailFailedEventPayload,
    EmailSentEventPayload,
    SendEmailCommandPayload,
)
from shared.platform.errors.notification import EmailProviderError

__all__ = ["PUBLISHES", "EmailSender"]

PUBLISHES = (EMAIL_SENT, EMAIL_FAILED)

_LONG_AGO = datetime.fromtimestamp(0, UTC)


class _Attempt(NamedTuple):
    id: UUID
    number: int


class EmailSender:
    """Turns commands into mails. It holds no transaction while it speaks to the mail server."""

    def __init__(
        self,
        unit_of_work: UnitOfWorkFactory,
        templates: Templates,
        mailer: Mailer,
        *,
        lease: timedelta,
    ) -> None:
        """Bind it to its parts.

        Args:
            unit_of_work: makes the short transactions around each attempt.
            templates: of the mails.
            mailer: to the mail server.
            lease: how long an attempt keeps others away; longer than the mailer's timeout.
        """
        self._unit_of_work = unit_of_work
        self._templates = templates
        self._mailer = mailer
        self._lease = lease

    async def send(self, command: SendEmailCommandPayload, envelope: Envelope) -> None:
        """Send the mail of a command, unless that was done.

        The row of the command is claimed, the mail is sent, the row and the event are written.
        Where the process may die:

        - before the claim commits: nothing happened, the command comes again;
        - after the claim, before the server took the mail: the command comes again, and is claimed
          once the lease is over;
        - after the server's 250, before the end is written: the mail is sent a second time, with
          the same Message-ID. This gap cannot be closed, for SMTP has no transaction to share;
        - after the end is written: the command comes again and is passed over.

        Raises:
            TemplateNotFoundError, TemplateRenderError, InvalidRecipientError: no mail can be made
                of the command.
            EmailProviderError: the mail server cannot take it now.
            ConflictError: another attempt is running.
        """
        # Made first: a command of which no mail can be made leaves no row behind.
        recipient = command.recipient
        words = self._templates.render(command.notification_type, recipient.dynamic_content)
        notification_id = uuid5(NAMESPACE_OID, envelope.message_id)
        mail = self._mailer.compose(str(notification_id), recipient.email, words)

        with tenant_scope(recipient.merchant_id):
            attempt = await self._claim(notification_id, command, envelope.message_id)
            if attempt is None:
                return
            try:
                await self._mailer.send(mail)
            except MailRefusedError as refusal:
                await self._failed(command, attempt, refusal)
            except EmailProviderError as error:
                await self._release(attempt, str(error))
                raise
            else:
                await self._sent(command, attempt, str(mail["Message-ID"]))

    async def _claim(
        self, notification_id: UUID, command: SendEmailCommandPayload, message_id: str
    ) -> _Attempt | None:
        """Begin an attempt; None when the mail is at its end already."""
        async with self._unit_of_work() as uow:
            notifications = uow.repository(Notification)
            await notifications.insert_missing(
                [
                    {
                        "id": notification_id,
                        "message_id": message_id,
                        "merchant_id": command.recipient.merchant_id,
                        "notification_type": command.notification_type,
                        "recipient": command.recipient.email,
                        "status": NotificationStatus.WAITING,
                        "attempts": 0,
                        "leased_until": _LONG_AGO,
                    }
                ],
                conflict=["message_id"],
            )
            claimed = await notifications.update_many(
                {
                    "status": NotificationStatus.SENDING,
                    "attempts": Notification.attempts + 1,
                    "leased_until": func.now() + self._lease,
                },
                Notification.leased_until <= func.now(),
                id=notification_id,
                status__in=[NotificationStatus.SENDING, NotificationStatus.WAITING],
            )
            if claimed:
                return _Attempt(notification_id, claimed[0].attempts)
            status = (await notifications.get(notification_id)).status
        if status in (NotificationStatus.SENT, NotificationStatus.FAILED):
            return None
        raise ConflictError("Another attempt to send this mail is running", current_state=status)

    async def _end(self, uow: UnitOfWork, attempt: _Attempt, **columns: object) -> bool:
        """Write how an attempt ended; False when its lease ran out and another took over."""
        ended = await uow.repository(Notification).update_many(
            columns, id=attempt.id, attempts=attempt.number
        )
        return bool(ended)

    async def _sent(
        self, command: SendEmailCommandPayload, attempt: _Attempt, mail_id: str
    ) -> None:
        now = datetime.now(UTC)
        status = NotificationStatus.SENT
        async with self._unit_of_work() as uow:
            if await self._end(uow, attempt, status=status, sent_at=now, error=None):
                uow.outbox.add(
                    EMAIL_SENT,
                    EmailSentEventPayload(
                        notification_id=attempt.id,
                        merchant_id=command.recipient.merchant_id,
                        notification_type=command.notification_type,
                        provider=self._mailer.provider,
                        provider_message_id=mail_id,
                        sent_at=now,
                    ),
                    key=str(command.recipient.merchant_id),
                    idempotency_key=str(attempt.id),
                )

    async def _failed(
        self, command: SendEmailCommandPayload, attempt: _Attempt, refusal: MailRefusedError
    ) -> None:
        status = NotificationStatus.FAILED
        async with self._unit_of_work() as uow:
            if await self._end(uow, attempt, status=status, error=f"{refusal.code} {refusal}"):
                uow.outbox.add(
                    EMAIL_FAILED,
                    EmailFailedEventPayload(
                        notification_id=attempt.id,
                        merchant_id=command.recipient.merchant_id,
                        notification_type=command.notification_type,
                        error=str(refusal),
                        error_code=str(refusal.code),
                        retry_count=attempt.number - 1,
                        will_retry=False,
                        failed_at=datetime.now(UTC),
                    ),
                    key=str(command.recipient.merchant_id),
                    idempotency_key=str(attempt.id),
                )

    async def _release(self, attempt: _Attempt, error: str) -> None:
        async with self._unit_of_work() as uow:
            await self._end(
                uow,
                attempt,
                status=NotificationStatus.WAITING,
                error=error,
                leased_until=func.now(),
            )
