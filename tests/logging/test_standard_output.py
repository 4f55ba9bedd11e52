from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from unittest import mock

import pytest

from shared.logging.standard_output import StandardOutput


class Pipe:
    """A pipe in place of standard output, and the handler that writes to it."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.stream = os.fdopen(writer, "w")
        self.handler = StandardOutput()
        self.handler.setFormatter(logging.Formatter("%(message)s"))

    def log(self, message: str) -> None:
        with mock.patch.object(sys, "stdout", self.stream):
            self.handler.handle(logging.makeLogRecord({"msg": message}))

    def read_to_end(self) -> str:
        """Read until the handler has nothing left and the pipe is closed."""
        parts: list[bytes] = []

        def drain() -> None:
            while part := os.read(self.reader, 65536):
                parts.append(part)

        thread = threading.Thread(target=drain)
        thread.start()
        self.handler.flush()
        self.stream.close()
        thread.join()
        os.close(self.reader)
        return b"".join(parts).decode()


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


def test_a_line_is_out_when_the_call_returns(pipe: Pipe) -> None:
    pipe.log("hello")
    assert os.read(pipe.reader, 100) == b"hello\n"
    assert "log-output" not in {thread.name for thread in threading.enumerate()}
    assert pipe.read_to_end() == ""


def test_a_reader_that_stalls_stops_nobody_and_loses_nothing(pipe: Pipe) -> None:
    """A pipe holds 64 KiB; this is twenty times as much, some of it in lines longer than that."""
    sent = [f"{number:05d} " + "x" * (100_000 if number == 900 else 1000) for number in range(1300)]
    for line in sent:
        pipe.log(line)
    assert pipe.read_to_end().splitlines() == sent


def test_beyond_what_is_kept_lines_are_dropped_and_counted(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.logging.waiting_lines.KEPT_LINES", 10)
    for number in range(200):
        pipe.log(f"{number:03d} " + "x" * 1000)
    *kept, notice = pipe.read_to_end().splitlines()
    numbers = [int(line[:3]) for line in kept]
    assert numbers == sorted(set(numbers))
    assert notice == f"{200 - len(kept)} log lines were dropped: nobody read standard output"
    assert 10 < len(kept) < 200


def test_a_line_that_nobody_can_read_fails_no_caller() -> None:
    code = """
import os, sys
from shared.logging import create_logger
sys.stdout = os.fdopen(1, "w")
sys.stderr = open(os.devnull, "w")
os.close(1)
create_logger("any").info("gone")
sys.stdout = None
create_logger("any").info("gone")
os._exit(7)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.PIPE)
    assert done.returncode == 7


def test_what_waits_is_written_before_the_process_ends() -> None:
    code = """
import sys
from shared.logging import create_logger
for number in range(300):
    create_logger("any").info("%d " + "x" * 1000, number)
print("about to end", file=sys.stderr)
"""
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline() == b"about to end\n"
        assert len(process.stdout.read().splitlines()) == 300
    assert process.returncode == 0


def test_an_event_loop_goes_on_while_the_reader_is_stopped() -> None:
    """The reader is a process that is stopped as by Ctrl+Z; the pipe between the two is full."""
    code = """
import asyncio, sys
from shared.logging import create_logger

async def main():
    ticks = 0
    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1
    task = asyncio.create_task(tick())
    for number in range(2000):
        create_logger("any").info(f"{number} " + "x" * 1000)
        await asyncio.sleep(0)
    task.cancel()
    print("ticks", ticks, file=sys.stderr, flush=True)

asyncio.run(main())
"""
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    os.kill(reader.pid, signal.SIGSTOP)
    try:
        writer = subprocess.Popen(
            [sys.executable, "-c", code], stdout=reader.stdin, stderr=subprocess.PIPE
        )
        assert reader.stdin is not None
        reader.stdin.close()
        reader.stdin = None
        assert writer.stderr is not None
        impatience = threading.Timer(60, writer.kill)
        impatience.start()
        word, count = writer.stderr.readline().split()
        impatience.cancel()
    finally:
        os.kill(reader.pid, signal.SIGCONT)
    assert word == b"ticks"
    assert int(count) >= 1999
    out, _ = reader.communicate(timeout=60)
    assert len(out.splitlines()) == 2000  # written at the exit, when the reader went on
    assert writer.wait(60) == 0
    writer.stderr.close()
