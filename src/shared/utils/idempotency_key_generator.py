"""A path of the first design: what it names lives in `shared.idempotency`."""

from shared.idempotency import generate_idempotency_key

__all__ = ["generate_idempotency_key"]
