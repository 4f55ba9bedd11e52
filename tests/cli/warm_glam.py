"""`glam` with its imports behind it: every call has a process of its own, forked from one.

Models, settings and logging are as fresh in it as in a new one, which would take seconds to import
the same modules. `python -m tests.cli.warm_glam` reads a call as a line of JSON, and answers it so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import shared.cli

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path(__file__).parents[2]


class WarmGlam:
    """Runs `glam` in the present folder and environment."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, *arguments: str, typed: str | None = None) -> tuple[int, str]:
        """Return the status, and what was written to standard output and standard error."""
        call = {
            "arguments": arguments,
            "typed": typed or "",
            "folder": str(Path.cwd()),
            "environment": {**os.environ, "COLUMNS": "200"},
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(call) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["status"], answer["said"]


@contextmanager
def warm_glam() -> Iterator[WarmGlam]:
    """Start the process that the calls are forked from."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cli.warm_glam"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    ) as process:
        try:
            yield WarmGlam(process)
        finally:
            process.kill()


def _serve() -> None:
    from shared.cli import app

    assert app  # imported for the children
    for line in sys.stdin:
        call = json.loads(line)
        with tempfile.TemporaryFile() as typed, tempfile.TemporaryFile() as said:
            typed.write(call["typed"].encode())
            typed.seek(0)
            child = os.fork()
            if child == 0:
                _become(call["folder"], call["environment"], typed, said)
                sys.argv = ["glam", *call["arguments"]]
                shared.cli.main()
                return
            _, status = os.waitpid(child, 0)
            said.seek(0)
            answer = {"status": os.waitstatus_to_exitcode(status), "said": said.read().decode()}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer


def _become(folder: str, environment: dict[str, str], typed: BinaryIO, said: BinaryIO) -> None:
    """Be what a new process would be, in that folder and with that input and output."""
    for source, descriptor in ((typed, 0), (said, 1), (said, 2)):
        os.dup2(source.fileno(), descriptor)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - the other one has read ahead
    os.chdir(folder)
    sys.path[0] = folder
    os.environ.clear()
    os.environ.update(environment)


if __name__ == "__main__":
    _serve()
