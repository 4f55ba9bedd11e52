"""Values of any kind as JSON: for the details of an error, a line of the log, a kept change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Protocol
from uuid import UUID

_MAX_DEPTH = 16


class Redaction(Protocol):
    """What is secret and how it is hidden; the module `shared.config.redaction` is one."""

    @property
    def MASK(self) -> str:  # noqa: N802 - a constant of the module
        """What is shown in place of a secret."""
        ...

    def is_secret(self, name: str) -> bool:
        """Say whether a key of this name holds a secret."""
        ...

    def redact_text(self, text: str) -> str:
        """Hide what looks like a secret."""
        ...


def json_safe(
    value: object, *, depth: int = _MAX_DEPTH, name: str = "", redaction: Redaction | None = None
) -> Any:
    """Return ``value`` in the types that JSON knows; never raises.

    Dates are ISO 8601, durations seconds, enum members their values, models and data classes
    dicts, sets sorted lists. Any other object is its ``str``, so a pydantic secret stays hidden.
    Iterators are not consumed.

    Args:
        value: what is to be told.
        depth: so many levels keep their shape. What is nested deeper is its ``str``, or ``...``
            where secrets are hidden.
        name: the key under which it stands.
        redaction: hides secrets, known by their key or by their look; None shows everything.
    """
    if value is None or isinstance(value, bool):
        return value
    if redaction is not None and redaction.is_secret(name):
        return redaction.MASK
    try:
        return _convert(value, depth, name, redaction)
    except Exception:  # noqa: BLE001 - an error must not fail while it is told
        return f"<{type(value).__name__} that cannot be shown>"


def _convert(value: object, depth: int, name: str, redaction: Redaction | None) -> Any:  # noqa: C901, PLR0911 - one line a type
    if isinstance(value, Enum):
        return json_safe(value.value, depth=depth - 1, name=name, redaction=redaction)
    if isinstance(value, str):
        return _text(value, redaction)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray):
        return _text(value.decode("utf-8", "backslashreplace"), redaction)
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, BaseException) and redaction is not None:
        return _text(f"{type(value).__qualname__}: {value}", redaction)
    shape = _shape(value, as_is=redaction is not None)
    if shape is None:
        return _text(str(value), redaction)
    if depth <= 0:
        return _text(str(value), redaction) if redaction is None else "..."
    if isinstance(shape, Mapping):
        return {
            (key := _text(str(json_safe(each, depth=0)), redaction)): json_safe(
                item, depth=depth - 1, name=key, redaction=redaction
            )
            for each, item in shape.items()
        }
    items = [json_safe(item, depth=depth - 1, name=name, redaction=redaction) for item in shape]
    return sorted(items, key=repr) if isinstance(value, AbstractSet) else items


def _shape(value: object, *, as_is: bool) -> Any:
    """Return what keeps its shape as a mapping or a collection; None for everything else.

    A model's own way to write its fields may show what their names say is secret.
    """
    if isinstance(value, Mapping | AbstractSet | list | tuple):
        return value
    if isinstance(value, type):
        return None
    if hasattr(value, "model_dump"):
        return dict(value) if as_is else value.model_dump(mode="json")  # type: ignore[call-overload]
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return None


def _text(text: str, redaction: Redaction | None) -> str:
    # A lone surrogate is a legal str that no UTF-8 answer can carry.
    text = text.encode("utf-8", "replace").decode()
    return text if redaction is None else redaction.redact_text(text)
