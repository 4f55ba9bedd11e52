"""Streams and consumers on the server: created, compared, read."""
