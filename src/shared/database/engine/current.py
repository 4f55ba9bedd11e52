"""The session of the unit of work that is open here: what repositories join."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["bind_session", "current_session", "detached"]


@dataclass(slots=True)
class _Binding:
    session: AsyncSession
    owner: asyncio.Task[object] | None
    open: bool = True


_binding: ContextVar[_Binding | None] = ContextVar("shared_database_session", default=None)


def current_session() -> AsyncSession | None:
    """Return the session of the open unit of work; None when there is none.

    A session serves one task. A task started inside a unit of work inherits its context, yet must
    not write through the same session at the same time, and must not quietly commit on its own
    what its author believed to be part of the unit of work either. So it is refused.

    Raises:
        RuntimeError: the unit of work that is open here belongs to another task.
    """
    binding = _binding.get()
    if binding is None or not binding.open:
        return None
    if binding.owner is not _current_task():
        raise RuntimeError(
            "a unit of work belongs to the task that opened it: open another one in this task, "
            "or work outside of it with `with detached():` from shared.database"
        )
    return binding.session


@contextmanager
def bind_session(session: AsyncSession) -> Iterator[None]:
    """Make ``session`` the current one of this task until the block ends.

    The former one, if any, is current again afterwards.
    """
    outer = _binding.get()
    binding = _Binding(session, _current_task())
    _binding.set(binding)
    try:
        yield
    finally:
        # Tasks started inside keep a copy of the context: for them, too, it is over now.
        binding.open = False
        _binding.set(outer)


@contextmanager
def detached() -> Iterator[None]:
    """Step outside of the unit of work: within the block, and in tasks started there, none is open.

    ``with detached(): asyncio.create_task(work())`` starts work with transactions of its own.
    """
    outer = _binding.get()
    _binding.set(None)
    try:
        yield
    finally:
        _binding.set(outer)


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # a thread without a loop
        return None
