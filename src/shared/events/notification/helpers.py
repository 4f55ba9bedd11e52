"""A path of the first design: what it names lives in `shared.legacy.events.notification`."""

from shared.legacy.events.notification import create_bulk_email_command, create_send_email_command

__all__ = ["create_bulk_email_command", "create_send_email_command"]
