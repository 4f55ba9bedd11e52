"""Waits for what has to happen."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["eventually"]

T = TypeVar("T")

_POLL_SECONDS = 0.02


@overload
async def eventually(
    condition: Callable[[], Coroutine[Any, Any, T]], *, timeout_seconds: float = ...
) -> T: ...
@overload
async def eventually(condition: Callable[[], T], *, timeout_seconds: float = ...) -> T: ...
async def eventually(condition: Callable[[], Any], *, timeout_seconds: float = 120.0) -> Any:
    """Return what `condition` returns, once that is true; ask again and again until then.

        await eventually(lambda: seen == [1, 2])
        dead = await eventually(DeadLetters(bus).list)

    An exception counts as not yet: a server that comes back refuses a few calls. The time limit is
    there to end a test that hangs, and says nothing about how long something may take.

    Args:
        condition: a plain function, or one whose result is awaited.
        timeout_seconds: how long it may take on the slowest machine.

    Raises:
        TimeoutError: it never came true; names the last result, and has the last exception, if
            there was one, as its cause.
    """
    found: Any = None
    failed: Exception | None = None
    try:
        async with asyncio.timeout(timeout_seconds):
            while True:
                try:
                    found, failed = condition(), None
                    if inspect.isawaitable(found):
                        found = await found
                except Exception as error:  # noqa: BLE001 - whatever it is, it may be over soon
                    failed = error
                else:
                    if found:
                        return found
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"not within {timeout_seconds:g} s: {found!r}") from failed
