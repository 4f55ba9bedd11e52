"""Keys that make work safe to ask for twice."""

from shared.idempotency.key import generate_idempotency_key, idempotency_key

__all__ = ["generate_idempotency_key", "idempotency_key"]
