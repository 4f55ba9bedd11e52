"""Settings of the notification service."""

from pydantic import Field, SecretStr

from shared.config import Section, ServiceSettings

__all__ = ["NotificationSettings", "SmtpSettings"]


class SmtpSettings(Section):
    """The mail server, and whom the mails are from."""

    host: str = "127.0.0.1"
    port: int = Field(default=25, ge=1, le=65535)
    user: str | None = None
    password: SecretStr | None = None
    tls: bool = False
    """TLS from the first byte. Without it STARTTLS is used where the server offers it."""
    sender: str = "GLAM <no-reply@glam.example>"
    timeout_seconds: float = Field(default=20.0, gt=0)
    """For connecting, and for each answer of the server."""


class NotificationSettings(ServiceSettings):
    """The chassis' settings and ``smtp``."""

    smtp: SmtpSettings = SmtpSettings()
