"""The first design's path to `shared.idempotency`."""

from shared.idempotency import generate_idempotency_key

__all__ = ["generate_idempotency_key"]
