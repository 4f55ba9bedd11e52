"""Tests of services against real servers, and the proof that they keep their promises.

- The fixtures are in `shared.testing.plugin`; pytest finds them by itself.
- `shared.testing.promises`: suites that a service runs in its own tests.
- `shared.testing.faults`: real faults, each a context manager; `NatsProxy` for those of messages.
- `CrashPoints`: kills a process, or a server, at every await of a flow.
- `History` and `check`: what happened, and whether it may.
"""

from shared.testing.crash_points import Crash, CrashPoint, CrashPoints, FlowError
from shared.testing.faults import Fault
from shared.testing.history import Entry, History, Outcome, Verdict, check
from shared.testing.nats_frames import NatsFilter, NatsFrame
from shared.testing.nats_proxy import NatsProxy

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
]
