"""Connections to PostgreSQL: the engine and its pool, sessions, replicas, errors, measurements."""
