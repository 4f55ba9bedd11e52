"""Tenants kept apart: the scope of a session, and row-level security."""
