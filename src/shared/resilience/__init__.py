"""What to do while something else is down: how long to wait, and when to leave it alone.

`backoff_seconds` is the one back-off, `CircuitBreaker` the one breaker; calls over HTTP, handlers
of messages, the relay and repeated transactions use them.
"""

from shared.resilience.backoff import backoff_seconds
from shared.resilience.circuit_breaker import Circuit, CircuitBreaker, CircuitStatus, GuardedCall

__all__ = ["Circuit", "CircuitBreaker", "CircuitStatus", "GuardedCall", "backoff_seconds"]
