"""What every server has: a port, a data folder, a log file."""

import fcntl
import os
import random
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from shared.dev.process import Process, ProcessError

# Below the ports that systems hand out to clients (Linux: from 32768), so that no outgoing
# connection takes a server's port while it is down between `kill` and `restart`.
_PORTS = range(15_000, 32_000)
_PORT_TRIES = 20

_FOLDERS = "glam-server-"
# A folder without an owner that changed lately may have one in a moment.
_ORPHANED_SECONDS = 60.0


class Server(Process):
    """A server on 127.0.0.1.

    Without a `data_dir` it keeps its data in a temporary folder, which `stop` removes; what a
    process left that was killed itself is removed by the next server that starts. A given
    `data_dir` is made if missing and kept. Without a `port` it takes a free one at its first start
    and keeps it: `restart` comes back at the same address with the same data.
    """

    def __init__(
        self,
        *,
        name: str,
        data_dir: Path | None = None,
        port: int | None = None,
        start_timeout_seconds: float = 60.0,
        stop_timeout_seconds: float = 10.0,
    ) -> None:
        super().__init__(
            name=name,
            start_timeout_seconds=start_timeout_seconds,
            stop_timeout_seconds=stop_timeout_seconds,
        )
        self.host = "127.0.0.1"
        self._port = port
        self._kept_dir = None if data_dir is None else data_dir.absolute()
        self._dir: Path | None = None
        self._lock: int | None = None

    @property
    def port(self) -> int:
        """The TCP port.

        Raises:
            ProcessError: none was given and the server was never started.
        """
        if self._port is None:
            raise ProcessError(f"{self.name} was never started")
        return self._port

    @property
    def data_dir(self) -> Path:
        """The folder of data, configuration and log.

        Raises:
            ProcessError: none was given and the server is stopped.
        """
        directory = self._dir or self._kept_dir
        if directory is None:
            raise ProcessError(f"{self.name} is not started")
        return directory

    async def start(self) -> None:
        """Start and wait until it answers; a port that someone else took is changed for another.

        Raises:
            ProcessError: it ended, gave no answer in time, or the given port stays in use.
            ImportError: its extra is not installed; the text says what to type.
        """
        if self.running:
            return
        if self._dir is None:
            self._dir = self._kept_dir or self._temporary_dir()
            self._dir.mkdir(parents=True, exist_ok=True)
            self.log_file = self._dir / f"{self.name}.log"
        try:
            await self._prepare()
            if self._port is None:
                await self._start_at_a_free_port()
            else:
                await super().start()
        except BaseException:
            self._discard()
            raise

    async def stop(self) -> None:
        """Stop it and remove its temporary folder; a given `data_dir` stays."""
        await super().stop()
        self._discard()

    async def restart(self) -> None:
        """Stop it if it runs and start it again with the same port and data."""
        await super().stop()
        await self.start()

    async def _prepare(self) -> None:
        """Make what the first start in a data folder needs."""

    async def _start_at_a_free_port(self) -> None:
        for attempt in range(1, _PORT_TRIES + 1):
            self._port = free_port()
            try:
                await super().start()
            except BaseException as error:
                taken = isinstance(error, ProcessError) and "in use" in str(error)
                self._port = None
                if not taken or attempt == _PORT_TRIES:
                    raise
            else:
                return

    def _temporary_dir(self) -> Path:
        """Make a folder that is locked as long as this process lives, whatever ends it."""
        _remove_orphans(Path(tempfile.gettempdir()))
        folder = Path(tempfile.mkdtemp(prefix=f"{_FOLDERS}{self.name}-"))
        self._lock = os.open(folder, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return folder

    def _discard(self) -> None:
        if self._dir is not None and self._kept_dir is None:
            shutil.rmtree(self._dir, ignore_errors=True)
        self._dir = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _remove_orphans(parent: Path) -> None:
    """Remove the folders whose process is gone: nobody holds their lock."""
    for folder in parent.glob(f"{_FOLDERS}*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime < _ORPHANED_SECONDS:
                continue
            lock = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now; another process may still take it first.

    Raises:
        OSError: a hundred tries found none.
    """
    for _ in range(100):
        port = random.choice(_PORTS)  # noqa: S311 - no secret
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port found on 127.0.0.1")
