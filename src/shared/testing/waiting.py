"""Waiting for what has to happen, in tests."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


T = TypeVar("T")

_LOOK_SECONDS = 0.01


@overload
async def eventually(
    condition: Callable[[], Awaitable[T]], *, within_seconds: float = 120.0
) -> T: ...
@overload
async def eventually(condition: Callable[[], T], *, within_seconds: float = 120.0) -> T: ...
async def eventually(condition: Callable[[], Any], *, within_seconds: float = 120.0) -> Any:
    """Ask until the answer is true, and return it; an error counts as not yet.

    >>> handled = ["7"]
    >>> await eventually(lambda: len(handled))
    1

    Args:
        condition: a function, or one to be awaited; it is asked every ten milliseconds. `assert` in
            it says what was missing when the time is up.
        within_seconds: how long it may take on the slowest machine.

    Raises:
        TimeoutError: it never was; the last error of `condition` is its cause.
    """
    until = time.monotonic() + within_seconds
    while True:
        last: Exception | None = None
        try:
            async with asyncio.timeout(max(until - time.monotonic(), 0)):
                found = condition()
                if inspect.isawaitable(found):
                    found = await found
        except Exception as error:  # noqa: BLE001 - the next answer may be another
            last = error
        else:
            if found:
                return found
        if time.monotonic() >= until:
            raise TimeoutError(f"not true within {within_seconds:g} s") from last
        await asyncio.sleep(_LOOK_SECONDS)
