"""The notification service, declared: what it handles, what it may publish, what it answers."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

from services.notification.email_sender import PUBLISHES, EmailSender
from services.notification.mailer import Mailer
from services.notification.routes import router
from services.notification.settings import NotificationSettings
from services.notification.templates import Templates
from shared.delivery import UnitOfWorkFactory
from shared.events import Envelope
from shared.events.notification import SEND_EMAIL, SendEmailCommandPayload
from shared.messaging import RetryPolicy
from shared.platform.streams import STREAMS
from shared.service import Service

__all__ = ["service"]

service = Service(
    "notification-service",
    settings=NotificationSettings,
    publishes=PUBLISHES,
    streams=STREAMS,
    migrations="services.notification.migrations",
    description="Mails, written from templates and sent once.",
)
service.router.include_router(router)


@service.provides
async def email_sender(
    settings: NotificationSettings, unit_of_work: UnitOfWorkFactory
) -> AsyncIterator[EmailSender]:
    """Provide the way to the mail server."""
    yield EmailSender(
        unit_of_work,
        Templates(Path(__file__).with_name("mails")),
        Mailer(settings.smtp),
        lease=timedelta(seconds=settings.smtp.timeout_seconds + 5),
    )


# The delays of ten attempts outlast the lease of one whose process died.
@service.handles(SEND_EMAIL, retry=RetryPolicy(attempts=10))
async def send_email(
    command: SendEmailCommandPayload, envelope: Envelope, sender: EmailSender
) -> None:
    """Send the mail once; see ``EmailSender.send`` for what a crash can do."""
    await sender.send(command, envelope)
