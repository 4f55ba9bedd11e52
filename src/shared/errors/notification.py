"""A path of the first design: what it names lives in `shared.platform.errors.notification`."""

from typing import TYPE_CHECKING

from shared.legacy.table import handed_on

if TYPE_CHECKING:
    from shared.platform.errors.notification import (
        EmailProviderError,
        InvalidRecipientError,
        NotificationNotFoundError,
        PreferencesNotFoundError,
        TemplateNotFoundError,
        TemplateRenderError,
        UnsubscribedError,
    )

__all__ = [
    "EmailProviderError",
    "InvalidRecipientError",
    "NotificationNotFoundError",
    "PreferencesNotFoundError",
    "TemplateNotFoundError",
    "TemplateRenderError",
    "UnsubscribedError",
]

__getattr__, __dir__ = handed_on(__name__)
