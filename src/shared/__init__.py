"""The chassis of a multi-tenant commerce platform's services.

Importing it costs nothing: each floor is loaded when its name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared import (
        api,
        config,
        context,
        contracts,
        database,
        delivery,
        doctor,
        errors,
        events,
        http,
        idempotency,
        logging,
        mappers,
        messaging,
        metrics,
        platform,
        service,
        tracing,
    )

    __version__: str

__all__ = [
    "__version__",
    "api",
    "config",
    "context",
    "contracts",
    "database",
    "delivery",
    "doctor",
    "errors",
    "events",
    "http",
    "idempotency",
    "logging",
    "mappers",
    "messaging",
    "metrics",
    "platform",
    "service",
    "tracing",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - reads the installed metadata

        return version("glam-shared")
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
