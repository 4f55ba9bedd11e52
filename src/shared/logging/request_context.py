"""Fields bound to the current task: every log line of the task carries them."""

from __future__ import annotations

from contextvars import ContextVar
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTHING: Mapping[str, object] = MappingProxyType({})

request_context: ContextVar[Mapping[str, object]] = ContextVar(
    "request_context",
    default=_NOTHING,
)
"""The fields of this task. The mapping is read-only: `bind_fields` puts a new one in its place."""


def bind_fields(fields: Mapping[str, object]) -> None:
    """Add fields for this task and the tasks it starts from now on; other tasks never see them."""
    request_context.set(MappingProxyType({**request_context.get(), **fields}))


def clear_fields() -> None:
    """Take all fields away from this task."""
    request_context.set(_NOTHING)
