"""The process in which a flow runs and dies; see `shared.testing.crash_points`.

Run as a module with the address of its parent's socket and the flow. It imports the flow once and
forks for each run, which is a fresh process without the wait for imports. Only for `CrashPoints`.
"""

from __future__ import annotations

import asyncio
import ctypes
import importlib
import inspect
import json
import os
import signal
import socket
import sys
import traceback
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType, FrameType

_PR_SET_PDEATHSIG = 1
_ASYNCHRONOUS = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


class Steps:
    """Counts the moments of a flow, as the interpreter's profile function.

    A coroutine of the watched modules is entered, awaits, is resumed, returns: each is an event.
    Between two events without any call between them nothing can have happened that anybody else
    could see, so they are one moment: of a chain of awaits, the innermost.
    """

    def __init__(
        self, within: Sequence[str], repeats: int, reached: Callable[[str, str, int], None]
    ) -> None:
        self._within = tuple(within)
        self._repeats = repeats
        self._reached = reached
        self._watched: dict[CodeType, bool] = {}
        self._times: Counter[tuple[str, str]] = Counter()
        self._entered: FrameType | None = None
        self._worked = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Be told by the interpreter."""
        if event in {"c_return", "c_exception"}:
            return
        if event != "c_call" and self._watches(frame):
            if event == "call":
                self._entered = frame
            elif self._entered is not None:
                self._entered = None
            elif self._worked:
                self._worked = False
                self._moment(frame, "after")
        elif event in {"call", "c_call"}:
            if self._entered is not None:
                entered, self._entered = self._entered, None
                self._moment(entered, "before")
            self._worked = True

    def _watches(self, frame: FrameType) -> bool:
        code = frame.f_code
        known = self._watched.get(code)
        if known is None:
            name = str(frame.f_globals.get("__name__", ""))
            known = bool(code.co_flags & _ASYNCHRONOUS) and any(
                name == package or name.startswith(f"{package}.") for package in self._within
            )
            self._watched[code] = known
        return known

    def _moment(self, frame: FrameType, moment: str) -> None:
        name = frame.f_globals.get("__name__", "")
        where = f"{name}.{frame.f_code.co_qualname}:{frame.f_lineno}"
        self._times[where, moment] += 1
        times = self._times[where, moment]
        if times <= self._repeats:
            self._reached(where, moment, times)


def main() -> None:
    """Serve runs until the parent hangs up."""
    address, flow_name = sys.argv[1:]
    parent = socket.socket(socket.AF_UNIX)
    parent.connect(address)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    module, _, name = flow_name.partition(":")
    flow = getattr(importlib.import_module(module), name)
    orders = parent.makefile("r", encoding="utf-8")
    _tell(parent, ready=True)
    for line in orders:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            os._exit(_run(flow, order, parent))
        _, status = os.waitpid(child, 0)
        _tell(parent, ended=os.waitstatus_to_exitcode(status))


def _run(flow: Callable[..., Any], order: dict[str, Any], parent: socket.socket) -> int:
    signal.alarm(round(order["limit_seconds"]))
    found: list[tuple[str, str, int]] = []
    point = order["point"]

    def reached(where: str, moment: str, times: int) -> None:
        if order["record"]:
            found.append((where, moment, times))
        elif [where, moment, times] == point:
            if not order["wait"]:
                os.kill(os.getpid(), signal.SIGKILL)
            sys.setprofile(None)
            _tell(parent, at=point)
            parent.recv(1)

    try:
        if order["record"] or point:
            sys.setprofile(Steps(order["within"], order["repeats"], reached))
        asyncio.run(flow(*order["arguments"]))
        sys.setprofile(None)
        if order["record"]:
            _tell(parent, points=found)
    except BaseException:  # noqa: BLE001 - a fork must not return into the parent's code
        sys.setprofile(None)
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _tell(parent: socket.socket, **what: object) -> None:
    parent.sendall(json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
