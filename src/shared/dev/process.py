"""A child process in a session of its own that never outlives this one."""

import abc
import asyncio
import atexit
import concurrent.futures
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from shared.dev._family import Family

_EXEC = str(Path(__file__).with_name("_exec.py"))
_POLL_SECONDS = 0.01


class ProcessError(RuntimeError):
    """The process could not be started; the text ends with the last lines of its log."""


class Process(abc.ABC):
    """A child program: start, stop, kill, pause, resume, restart.

    It holds nothing of an event loop, so one loop may start it and another stop it. Ctrl-C in the
    terminal does not reach it. When this process dies, by whatever cause, Linux sends the child
    its death signal; elsewhere that happens at a normal end only.

    One instance is for one caller at a time. `stop` and `kill` may be called again and do nothing
    then; so does `start` while the process runs.
    """

    death_signal: signal.Signals = signal.SIGKILL
    stop_signal: signal.Signals = signal.SIGTERM

    def __init__(
        self,
        *,
        name: str,
        log_file: Path | None = None,
        start_timeout_seconds: float = 60.0,
        stop_timeout_seconds: float = 10.0,
    ) -> None:
        self.name = name
        self.log_file = log_file
        self.start_timeout_seconds = start_timeout_seconds
        self.stop_timeout_seconds = stop_timeout_seconds
        self._popen: subprocess.Popen[bytes] | None = None
        self._paused = False

    @abc.abstractmethod
    def _command(self) -> Sequence[str]:
        """The program and its arguments."""

    @abc.abstractmethod
    async def _ready(self) -> bool:
        """Whether the running program answers; asked again and again while it starts."""

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    def _directory(self) -> Path | None:
        return None

    def _user(self) -> pwd.struct_passwd | None:
        """The user to run as; None: the one we are."""
        return None

    @property
    def pid(self) -> int | None:
        """The process id of the last start; None before the first."""
        return None if self._popen is None else self._popen.pid

    @property
    def returncode(self) -> int | None:
        """How it ended (negative: by that signal); None while it runs or before the first start."""
        return None if self._popen is None else self._popen.poll()

    @property
    def running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._popen is not None and self._popen.poll() is None

    async def start(self) -> None:
        """Start and wait until it answers.

        Raises:
            ProcessError: it ended, or gave no answer within `start_timeout_seconds`.
        """
        if self.running:
            return
        self._spawn()
        deadline = time.monotonic() + self.start_timeout_seconds
        try:
            while not await self._ready():
                if not self.running:
                    raise self._failure(f"ended with {self.returncode}")
                if time.monotonic() > deadline:
                    raise self._failure(f"gave no answer in {self.start_timeout_seconds:g} s")
                await asyncio.sleep(_POLL_SECONDS)
        except BaseException:
            self._kill()
            raise

    async def stop(self) -> None:
        """Ask it to end; kill it after `stop_timeout_seconds`, or when this call is cancelled."""
        try:
            if self._popen is not None and self.running:
                await self.resume()
                self._popen.send_signal(self.stop_signal)
                await self._ended(self.stop_timeout_seconds)
        finally:
            self._kill()

    async def kill(self) -> None:
        """End it and all its children at once (SIGKILL), as a crash of the machine would."""
        self._kill()

    async def restart(self) -> None:
        """Stop it if it runs and start it again; after `kill` or a crash: start it again."""
        await self.stop()
        await self.start()

    async def pause(self) -> None:
        """Freeze it and all its children (SIGSTOP): connections stay open and nothing answers."""
        if self.running:
            self._freeze()

    async def resume(self) -> None:
        """Let it go on after `pause`; otherwise nothing."""
        if self._paused and self._popen is not None and self.running:
            _family_of(self._popen.pid).signal(signal.SIGCONT)
        self._paused = False

    async def wait(self, timeout_seconds: float | None = None) -> int:
        """Wait until it has ended; how it ended.

        Raises:
            TimeoutError: it still runs after `timeout_seconds`.
            ProcessError: it was never started.
        """
        if self._popen is None:
            raise ProcessError(f"{self.name} was never started")
        if not await self._ended(timeout_seconds):
            raise TimeoutError(f"{self.name} still runs after {timeout_seconds:g} s")
        return self._popen.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _spawn(self) -> None:
        _family_of(os.getpid())  # an extra that is missing shows before anything is started
        # The death signal comes when the *thread* that forked ends (prctl(2)), so each child has
        # a thread that lives exactly as long as the child does, and reaps it.
        born: concurrent.futures.Future[subprocess.Popen[bytes]] = concurrent.futures.Future()
        keeper = threading.Thread(target=self._keep, args=(born,), name=self.name, daemon=True)
        keeper.start()
        self._popen = born.result()
        self._paused = False
        atexit.register(self._kill)

    def _keep(self, born: "concurrent.futures.Future[subprocess.Popen[bytes]]") -> None:
        try:
            user = self._user()
            identity = ("", "") if user is None else (str(user.pw_uid), str(user.pw_gid))
            launcher = (sys.executable, "-I", "-S", _EXEC, str(os.getpid()))
            command = (*launcher, str(int(self.death_signal)), *identity, *self._command())
            log = None if self.log_file is None else self.log_file.open("ab")
            try:
                popen = subprocess.Popen(  # noqa: S603 - our own command, without a shell
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=None if log is None else subprocess.STDOUT,
                    env=dict(self._environment()),
                    cwd=self._directory(),
                    start_new_session=True,
                )
            finally:
                if log is not None:
                    log.close()
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for us
            born.set_exception(error)
        else:
            born.set_result(popen)
            popen.wait()

    async def _ended(self, timeout_seconds: float | None) -> bool:
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while self.running:
            if deadline is not None and time.monotonic() > deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True

    def _freeze(self) -> "Family":
        """Stop the leader first, so that it starts no new children while we look for them."""
        popen = self._popen
        assert popen is not None  # noqa: S101 - callers asked whether it runs
        self._paused = True
        popen.send_signal(signal.SIGSTOP)
        family = _family_of(popen.pid)
        family.signal(signal.SIGSTOP)
        return family

    def _kill(self) -> None:
        atexit.unregister(self._kill)
        if self._popen is None or not self.running:
            return
        family = self._freeze()
        family.signal(signal.SIGKILL)
        self._popen.kill()
        self._popen.wait()
        while family.alive():
            time.sleep(_POLL_SECONDS)
        self._paused = False

    def _failure(self, what: str) -> ProcessError:
        log = self.log_file
        text = log.read_text(encoding="utf-8", errors="replace") if log and log.exists() else ""
        return ProcessError("\n".join((f"{self.name} {what}", *text.splitlines()[-20:])))


def _family_of(pid: int) -> "Family":
    try:
        from shared.dev._family import Family  # noqa: PLC0415 - psutil is an extra
    except ImportError as error:
        from shared.errors import missing_extra  # noqa: PLC0415 - only for this error

        raise missing_extra("dev", error) from error
    return Family(pid)
