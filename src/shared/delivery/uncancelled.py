"""Cancellations that nobody asked for, made errors, so that no task ends by one for good."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["uncancelled"]

T = TypeVar("T")


async def uncancelled(step: Awaitable[T]) -> T:
    """Await a step; a cancellation that is not ours is an error.

    A task group takes a task that ends cancelled for one that was asked to, and goes on without it.

    Raises:
        RuntimeError: something that the step awaited was cancelled.
    """
    try:
        return await step
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("cancelled from within") from error
