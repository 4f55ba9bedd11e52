"""Kills a process, or something else, at every await of a flow."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from shared.dev import ServiceProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from shared.testing.faults import Fault


_START_SECONDS = 60.0
_LINE_LIMIT = 16 * 1024 * 1024


class FlowError(AssertionError):
    """A flow did not come to its end; the text ends with what its process wrote."""


@dataclass(frozen=True, slots=True)
class CrashPoint:
    """A moment of a flow: `before` or `after` something happens at a line, the n-th time there.

    `where` is `module.function:line`. *After* is when a coroutine awaits or returns; *before* is
    when it was entered or resumed and has not gone on.
    """

    where: str
    moment: str
    times: int = 1

    def __str__(self) -> str:
        return f"{self.moment} {self.where}" + (f" #{self.times}" if self.times > 1 else "")


@dataclass(frozen=True, slots=True)
class Crash:
    """What was done at one point of one run.

    `happened` is False when this run did not come to the point; it then ended well, too.
    """

    point: CrashPoint
    scenario: str
    happened: bool


class CrashPoints:
    """Runs a flow again and again in processes of its own, with a crash at another await each time.

        async with CrashPoints("tests.order_flow:run", settings) as points:
            async for crash in points.each():
                assert await effects_of(crash.scenario) == 1, crash

    The flow is `async def run(scenario: str, *arguments: str) -> None` in a module that the child
    can import. It does its work for the `scenario` (a fresh text for every crash) and returns when
    the work is done, whatever an earlier run of the same scenario that was killed left behind. The
    first run finds the points; at each of them a run is killed (SIGKILL), and a fresh process then
    has to complete the flow: if it fails, or takes longer than `limit_seconds`, `each` raises.

    Every entering, awaiting, resuming and returning of a coroutine of the modules `within` is a
    point, told apart by line; of the same line the first `repeats` times. The points between which
    nothing is called are one.

    Args:
        flow: `module:function`.
        arguments: for the flow, after the scenario.
        within: modules, with what is below them, whose awaits count.
        repeats: how often a line that is passed again and again counts.
        limit_seconds: how long one run may take; a run that takes longer is killed.
        env: added to the environment of the flow.
    """

    def __init__(
        self,
        flow: str,
        *arguments: str,
        within: Sequence[str] = ("shared",),
        repeats: int = 1,
        limit_seconds: float = 30.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._flow = flow
        self._arguments = arguments
        self._within = tuple(within)
        self._repeats = repeats
        self._limit_seconds = limit_seconds
        self._env = dict(env or {})
        self._stack = AsyncExitStack()
        self._log = Path(os.devnull)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._found: list[CrashPoint] | None = None

    async def __aenter__(self) -> Self:
        """Start the process that the runs are forked from.

        Raises:
            FlowError: the flow cannot be imported.
        """
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="glam-crash-")))
            self._log = folder / "flow.log"
            came: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
                asyncio.get_running_loop().create_future()
            )
            server = await asyncio.start_unix_server(
                lambda reader, writer: came.set_result((reader, writer)),
                folder / "socket",
                limit=_LINE_LIMIT,
            )
            stack.callback(server.close)
            process = ServiceProcess(
                [
                    *(sys.executable, "-m", "shared.testing._crash_child"),
                    *(str(folder / "socket"), self._flow),
                ],
                name="crash points",
                env=self._env,
                log_file=self._log,
            )
            await stack.enter_async_context(process)
            ended = asyncio.create_task(process.wait())
            either: set[asyncio.Future[Any]] = {came, ended}
            await asyncio.wait(either, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if not came.done():
                raise self._error(f"{self._flow} did not start")
            self._reader, self._writer = came.result()
            stack.callback(self._writer.close)
            await self._hear()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def found(self) -> list[CrashPoint]:
        """The points of the flow, in the order of a run without a crash; runs it the first time.

        Raises:
            FlowError: the run failed.
        """
        if self._found is None:
            said = await self._run(_fresh(), record=True)
            self._found = [CrashPoint(*point) for point in said["points"]]
        return list(self._found)

    async def each(
        self,
        *,
        every: int = 1,
        matching: str = "",
        victim: Fault | None = None,
        down_seconds: float = 0.1,
    ) -> AsyncIterator[Crash]:
        """Crash at one point after the other; the flow is complete again whenever this yields.

        Args:
            every: take every so-manieth point, where all would take too long.
            matching: only points in whose text this regular expression is found.
            victim: what happens at the point in place of the death of the flow's own process, for
                example `killed(nats_server)`. The process stands still until it has begun, and goes
                on while it lasts; the flow has to end well all the same.
            down_seconds: how long the victim is down.

        Raises:
            FlowError: the flow was not completed after a crash; names the point.
        """
        points = [point for point in await self.found() if re.search(matching, str(point))]
        for point in points[::every]:
            scenario = _fresh()
            if victim is None:
                said = await self._run(scenario, point=point)
                happened = said["ended"] == -signal.SIGKILL
                if happened:
                    await self._run(scenario, crashed_at=point)
            else:
                happened = await self._run_with(scenario, point, victim, down_seconds)
            yield Crash(point, scenario, happened)

    async def _run_with(
        self, scenario: str, point: CrashPoint, victim: Fault, down_seconds: float
    ) -> bool:
        await self._order(scenario, point=point, wait=True)
        said = await self._hear()
        happened = "at" in said
        if happened:
            async with victim:
                await self._say(b"g")
                await asyncio.sleep(down_seconds)
            said = await self._hear()
        if said["ended"]:
            raise self._failed(said["ended"], f"{victim} {point}")
        return happened

    async def _run(
        self,
        scenario: str,
        *,
        record: bool = False,
        point: CrashPoint | None = None,
        crashed_at: CrashPoint | None = None,
    ) -> dict[str, Any]:
        """Run to the end; what was said of it."""
        await self._order(scenario, record=record, point=point)
        said: dict[str, Any] = {}
        while "ended" not in said:
            said |= await self._hear()
        ended = said["ended"]
        if ended and not (point is not None and ended == -signal.SIGKILL):
            when = f"a crash {crashed_at}" if crashed_at else "no crash"
            raise self._failed(ended, when)
        return said

    async def _order(
        self,
        scenario: str,
        *,
        record: bool = False,
        point: CrashPoint | None = None,
        wait: bool = False,
    ) -> None:
        order = {
            "arguments": [scenario, *self._arguments],
            "record": record,
            "point": [point.where, point.moment, point.times] if point else None,
            "wait": wait,
            "within": self._within,
            "repeats": self._repeats,
            "limit_seconds": self._limit_seconds,
        }
        await self._say(json.dumps(order).encode() + b"\n")

    async def _say(self, words: bytes) -> None:
        if self._writer is None:
            raise RuntimeError("enter the crash points first: async with CrashPoints(...)")
        self._writer.write(words)
        await self._writer.drain()

    async def _hear(self) -> dict[str, Any]:
        assert self._reader is not None  # noqa: S101 - it was spoken to
        line = await self._reader.readline()
        if not line:
            raise self._error(f"{self._flow} ended")
        said: dict[str, Any] = json.loads(line)
        return said

    def _failed(self, ended: int, after: str) -> FlowError:
        if ended == -signal.SIGALRM:
            return self._error(
                f"{self._flow} did not end within {self._limit_seconds:g} s, after {after}"
            )
        return self._error(f"{self._flow} ended with {ended}, after {after}")

    def _error(self, what: str) -> FlowError:
        written = self._log.read_text(errors="replace") if self._log.exists() else ""
        return FlowError("\n".join((what, *written.splitlines()[-30:])))


def _fresh() -> str:
    return f"scenario-{secrets.token_hex(6)}"
