"""Tests of services against real servers, and what such tests are made of.

- The fixtures are in `shared.testing.plugin`; pytest finds them by itself.
- `shared.testing.suites`: contract tests that a service runs among its own.
- `shared.testing.faults`: real faults, each a context manager; `NatsProxy` for those of messages.
- `CrashPoints`: kills a process, or a server, at every await of a flow.
- `History` and `check`: what happened, and whether it may.
- `eventually`: waits for what has to happen.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.testing.crash_points import Crash, CrashPoint, CrashPoints, FlowError
    from shared.testing.faults import Fault
    from shared.testing.history import Entry, History, Outcome, Verdict, check
    from shared.testing.nats_frames import NatsFilter, NatsFrame
    from shared.testing.nats_proxy import NatsProxy
    from shared.testing.waiting import eventually

__all__ = [
    "Crash",
    "CrashPoint",
    "CrashPoints",
    "Entry",
    "Fault",
    "FlowError",
    "History",
    "NatsFilter",
    "NatsFrame",
    "NatsProxy",
    "Outcome",
    "Verdict",
    "check",
    "eventually",
]

# Found when asked for: pytest loads this package with the plugin, in every project.
_HOMES = {
    "Crash": "crash_points",
    "CrashPoint": "crash_points",
    "CrashPoints": "crash_points",
    "Entry": "history",
    "Fault": "faults",
    "FlowError": "crash_points",
    "History": "history",
    "NatsFilter": "nats_frames",
    "NatsFrame": "nats_frames",
    "NatsProxy": "nats_proxy",
    "Outcome": "history",
    "Verdict": "history",
    "check": "history",
    "eventually": "waiting",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
