"""What a middleware must be, looked at when it is declared rather than with the first message."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_steps(steps: Iterable[object], of: str) -> None:
    """Refuse middleware that could not work.

    Args:
        steps: in a list or tuple.
        of: what each takes first, ``delivery`` or ``message``.

    Raises:
        TypeError: it is no list, or a step is a plain function, or takes other arguments.
    """
    form = f"async def step({of}, call_next)"
    if callable(steps):
        raise TypeError(f"middleware is {_name(steps)}: it must be a list, [{_name(steps)}]")
    for step in steps:
        if not callable(step):
            raise TypeError(f"middleware {step!r} is not a function: it must be {form}")
        if inspect.isroutine(step) and not inspect.iscoroutinefunction(step):
            raise TypeError(f"middleware {_name(step)} is not async: it must be {form}")
        try:
            inspect.signature(step).bind(of, "call_next")
        except TypeError as error:
            raise TypeError(f"middleware {_name(step)}: {error}: it must be {form}") from error


def _name(step: object) -> str:
    return getattr(step, "__qualname__", type(step).__qualname__)
