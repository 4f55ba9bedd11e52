"""Cancellations that nobody asked for, made errors, so that no task ends by one for good.

And the other way round: a cancellation that was asked for, and became an error on its way, is one.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def uncancelled() -> Iterator[None]:
    """Within the block a cancellation that is not ours is an error, and one that is ours is none.

    A task group takes a task that ends cancelled for one that was asked to, and goes on without it;
    a task that goes on though it was cancelled is waited for without end.

    Raises:
        RuntimeError: something that the block awaited was cancelled.
        CancelledError: the task is to end, whatever the block says.
    """
    task = asyncio.current_task()
    try:
        yield
    except asyncio.CancelledError as error:
        if task is None or task.cancelling():
            raise
        raise RuntimeError("cancelled from within") from error
    except Exception as error:
        if task is not None and task.cancelling():
            raise asyncio.CancelledError from error
        raise
