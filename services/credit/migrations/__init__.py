"""Revisions of the credit service's schema."""
