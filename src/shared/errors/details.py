"""Values of any kind as JSON, for the details of an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta
from enum import Enum
from typing import Any

_MAX_DEPTH = 16


def json_safe(value: object, *, depth: int = _MAX_DEPTH) -> Any:
    """Return ``value`` in the types that JSON knows; never raises.

    Dates are ISO 8601, durations seconds, enum members their values, models and data classes
    dicts, sets sorted lists. What is nested deeper than ``depth``, and any other object, is its
    ``str``, so a pydantic secret stays hidden.
    """
    if value is None or isinstance(value, bool):
        return value
    try:
        return _convert(value, depth)
    except Exception:  # noqa: BLE001 - an error must not fail while it is told
        return f"<{type(value).__name__}>"


def _convert(value: object, depth: int) -> Any:  # noqa: C901, PLR0911, PLR0912 - one line a type
    if isinstance(value, Enum):
        return json_safe(value.value, depth=depth - 1)
    if isinstance(value, str):
        # A lone surrogate is a legal str that no UTF-8 answer can carry.
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "replace")
    if depth <= 0:
        return json_safe(str(value))
    if isinstance(value, Mapping):
        return {_key(key): json_safe(item, depth=depth - 1) for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((json_safe(item, depth=depth - 1) for item in value), key=repr)
    if isinstance(value, list | tuple):
        return [json_safe(item, depth=depth - 1) for item in value]
    if isinstance(value, type):
        return str(value)
    if hasattr(value, "model_dump"):
        return json_safe(value.model_dump(mode="json"), depth=depth - 1)
    if is_dataclass(value):
        named = {field.name: getattr(value, field.name) for field in fields(value)}
        return json_safe(named, depth=depth - 1)
    return json_safe(str(value))


def _key(key: object) -> str:
    return str(json_safe(key, depth=0))
