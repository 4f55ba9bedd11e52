"""A service as a child process."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.dev.process import Process


class ServiceProcess(Process):
    """A module (`"services.credit"`, run with this Python) or a command, as a child process.

    `env` is added to our own environment. With `ready_url` a start is over when that address
    answers 2xx, without it at once. Without a `log_file` the child writes where we do; with one
    it is appended to, and its folder must exist.
    """

    def __init__(
        self,
        module_or_command: str | Sequence[str],
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        log_file: Path | None = None,
        ready_url: str | None = None,
        start_timeout_seconds: float = 60.0,
        stop_timeout_seconds: float = 30.0,
    ) -> None:
        command = (
            (sys.executable, "-m", module_or_command)
            if isinstance(module_or_command, str)
            else tuple(module_or_command)
        )
        super().__init__(
            name=name or (module_or_command if isinstance(module_or_command, str) else command[0]),
            log_file=log_file,
            start_timeout_seconds=start_timeout_seconds,
            stop_timeout_seconds=stop_timeout_seconds,
        )
        self.env = dict(env or {})
        self.ready_url = ready_url
        self._argv = command
        self._cwd = cwd

    def _command(self) -> Sequence[str]:
        return self._argv

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, **self.env}

    def _directory(self) -> Path | None:
        return self._cwd

    async def _ready(self) -> bool:
        if self.ready_url is None:
            return True
        import httpx  # noqa: PLC0415 - keeps the import light

        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
            try:
                return (await client.get(self.ready_url)).is_success
            except httpx.HTTPError:
                return False
