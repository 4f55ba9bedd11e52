"""Revisions of the notification service's schema."""
