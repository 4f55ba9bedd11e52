"""Errors of the notification service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors.base import ConflictError, InfrastructureError, NotFoundError, ValidationError

if TYPE_CHECKING:
    from uuid import UUID


class NotificationNotFoundError(NotFoundError):
    """No such notification."""

    code = "NOTIFICATION_NOT_FOUND"
    notification_id: UUID | None = None
    merchant_id: UUID | None = None


class TemplateNotFoundError(NotFoundError):
    """No such template."""

    code = "TEMPLATE_NOT_FOUND"
    template_name: str | None = None
    template_type: str | None = None


class TemplateRenderError(ValidationError):
    """The template and its variables do not fit."""

    code = "TEMPLATE_RENDER_ERROR"
    template_name: str | None = None
    missing_variables: list[str] | None = None
    render_error: str | None = None


class InvalidRecipientError(ValidationError):
    """Nothing can be sent to this address."""

    code = "INVALID_RECIPIENT"
    recipient: str | None = None
    reason: str | None = None


class PreferencesNotFoundError(NotFoundError):
    """The user never said what may be sent."""

    code = "PREFERENCES_NOT_FOUND"
    user_id: str | None = None


class EmailProviderError(InfrastructureError):
    """The mail provider did not take the mail."""

    code = "EMAIL_PROVIDER_ERROR"
    provider: str | None = None
    provider_error_code: str | None = None
    provider_message: str | None = None


class UnsubscribedError(ConflictError):
    """The recipient does not want this kind of mail."""

    code = "UNSUBSCRIBED"
    message = "Recipient has unsubscribed from notifications"
    user_id: str | None = None
    notification_type: str | None = None
    unsubscribed_at: str | None = None
