"""Revisions of the webhook service's schema."""
