"""Alembic's script folder, shared by all services."""
