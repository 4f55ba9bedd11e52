"""The long-running tasks of a service, owned in one place and loud when one dies."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Coroutine


_logger = logging.getLogger(__name__)


class Workers:
    """Tasks that should run until the service stops.

    A worker heals from its own troubles; one that ends by an error all the same is a defect. It is
    logged as critical and ``check`` raises from then on, so that readiness tells the truth. The
    others go on: one dead handler should not take the service down.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Coroutine[object, object, None]) -> None:
        """Run ``work`` as the worker ``name``."""
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

    def check(self) -> str:
        """Return how many workers there are.

        Raises:
            RuntimeError: a worker died; the message names it and its error.
        """
        for name, task in self._tasks.items():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise RuntimeError(f"worker {name} died: {error!r}") from error
        return f"{len(self._tasks)} workers"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel every worker that still runs and wait for it."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    @staticmethod
    def _ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.critical("worker %s died", task.get_name(), exc_info=error)
