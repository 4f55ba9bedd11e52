"""How messages are put together for a handler that takes many at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """How many messages a handler is given at once, and how long the first may wait for the rest.

    Raises:
        ValueError: On numbers that make no policy.
    """

    size: int = 100
    wait_seconds: float = 0.2

    def __post_init__(self) -> None:
        if self.size < 1 or self.wait_seconds < 0:
            raise ValueError("size >= 1 and wait_seconds >= 0 must hold")
