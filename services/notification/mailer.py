"""Handing a mail to the mail server."""

import asyncio
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime, parseaddr

import aiosmtplib

from services.notification.settings import SmtpSettings
from services.notification.templates import Rendered
from shared.platform.errors.notification import EmailProviderError, InvalidRecipientError
from shared.tracing import span

__all__ = ["MailRefusedError", "Mailer"]

_PERMANENT = 500


class MailRefusedError(Exception):
    """The mail server refused this mail for good (RFC 5321, 4.2.1: a reply of 5yz).

    Attributes:
        code: the server's reply code.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Mailer:
    """Speaks SMTP, one connection for each mail."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._domain = parseaddr(settings.sender)[1].rpartition("@")[2]

    @property
    def provider(self) -> str:
        """The mail server's name in events."""
        return f"smtp:{self._settings.host}"

    def compose(self, notification_id: str, recipient: str, words: Rendered) -> EmailMessage:
        """Make the mail. Its Message-ID follows from the notification: it is the same every time.

        Raises:
            InvalidRecipientError: the address is none.
        """
        try:
            address = Address(addr_spec=recipient)
        except (MessageError, IndexError, ValueError) as error:
            raise InvalidRecipientError(
                f"{recipient!r} is not a mail address", recipient=recipient, reason=str(error)
            ) from error
        mail = EmailMessage(policy=SMTP)
        mail["From"] = self._settings.sender
        mail["To"] = address
        mail["Subject"] = words.subject
        mail["Date"] = format_datetime(localtime())
        mail["Message-ID"] = f"<{notification_id}@{self._domain}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no vacation replies, please
        mail.set_content(words.text)
        mail.add_alternative(words.html, subtype="html")
        return mail

    async def send(self, mail: EmailMessage) -> None:
        """Hand the mail over; when this returns the server has answered for it.

        Raises:
            MailRefusedError: the recipient or the content is refused for good.
            EmailProviderError: anything else went wrong, an outage or a wrong password; the same
                mail may go through later.
        """
        try:
            with span("send mail", kind="client", server=self.provider):
                await self._speak(mail)
        except aiosmtplib.SMTPRecipientsRefused as error:
            _raise_reply(error.recipients[0])
        except aiosmtplib.SMTPDataError as error:
            _raise_reply(error)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            raise EmailProviderError(
                f"The mail server did not take the mail: {error or type(error).__name__}",
                provider=self.provider,
            ) from error

    async def _speak(self, mail: EmailMessage) -> None:
        settings = self._settings
        password = settings.password
        async with asyncio.timeout(settings.timeout_seconds):
            await aiosmtplib.send(
                mail,
                hostname=settings.host,
                port=settings.port,
                username=settings.user,
                password=None if password is None else password.get_secret_value(),
                use_tls=settings.tls,
                timeout=settings.timeout_seconds,
            )


def _raise_reply(error: aiosmtplib.SMTPResponseException) -> None:
    if error.code >= _PERMANENT:
        raise MailRefusedError(error.code, error.message) from error
    raise EmailProviderError(
        "The mail server cannot take the mail now",
        provider_error_code=str(error.code),
        provider_message=error.message,
    ) from error
