"""What becomes of the servers when the process that started them ends in an ugly way."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import shared
from tests.dev.probes import is_free, is_gone

pytestmark = pytest.mark.servers

SCRIPT = """
import asyncio, json, signal, sys
from shared.dev import NatsServer, PostgresServer, ServiceProcess, SmtpSink

async def main():
    sleeper = ServiceProcess([sys.executable, "-c", "import time; time.sleep(600)"])
    async with NatsServer() as nats, PostgresServer() as postgres, SmtpSink() as mail, sleeper:
        processes = [nats, postgres, sleeper]
        print(json.dumps({
            "pids": [process.pid for process in processes],
            "ports": [nats.port, postgres.port, mail.port],
            "folders": [str(s.data_dir) for s in (nats, postgres, mail)],
        }), flush=True)
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.2)
            print(json.dumps([process.running for process in processes]), flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts with &
asyncio.run(main())
"""


@contextmanager
def running(
    python: str = sys.executable, user: str | None = None, **env: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, list[str]]]]:
    with subprocess.Popen(
        [python, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        user=user,
        group=None if user is None else pwd.getpwnam(user).pw_gid,
        extra_groups=None if user is None else [],
        env={**os.environ, **env},
        cwd="/",
    ) as parent:
        try:
            assert parent.stdout is not None
            yield parent, json.loads(parent.stdout.readline())
        finally:
            parent.kill()


def family(pids: list[int]) -> list[int]:
    return [
        member.pid
        for pid in pids
        for member in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))
    ]


def wait_until_gone(pids: list[int]) -> None:
    deadline = time.monotonic() + 120
    while any(not is_gone(pid) for pid in pids):
        assert time.monotonic() < deadline, "processes are left over"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="the death signal is Linux's")
def test_a_killed_parent_leaves_no_process() -> None:
    with running() as (parent, made):
        pids = family([int(pid) for pid in made["pids"]])
        assert len(pids) > 3
        parent.kill()
        parent.wait()
        wait_until_gone(pids)
    for folder in made["folders"]:
        shutil.rmtree(folder, ignore_errors=True)


def test_ctrl_c_leaves_the_order_of_ending_to_the_script_and_then_nothing() -> None:
    with running() as (parent, made):
        pids = family([int(pid) for pid in made["pids"]])
        os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: the whole group
        assert parent.stdout is not None
        assert json.loads(parent.stdout.readline()) == [True, True, True]
        assert parent.wait(timeout=120) != 0
        assert all(is_gone(pid) for pid in pids)
        assert all(is_free(int(port)) for port in made["ports"])
        assert not any(Path(folder).exists() for folder in made["folders"])


@pytest.mark.usefixtures("as_root")
def test_an_unprivileged_user_can_run_them() -> None:
    python = reachable_python()
    home = tempfile.mkdtemp()
    shutil.chown(home, "nobody")
    source = Path(shared.__file__).parents[1]
    path = f"{source}:{sysconfig.get_path('purelib')}:{sysconfig.get_path('platlib')}"
    try:
        with running(
            python,
            user="nobody",
            HOME=home,
            TMPDIR=home,
            PYTHONPATH=path,
            PYTHONDONTWRITEBYTECODE="1",
            PATH=f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
        ) as (parent, made):
            owners = {psutil.Process(int(pid)).username() for pid in made["pids"]}
            assert owners == {"nobody"}
            parent.send_signal(signal.SIGINT)
            parent.wait(timeout=120)
            assert all(is_gone(int(pid)) for pid in made["pids"])
    finally:
        shutil.rmtree(home)


def reachable_python() -> str:
    """This version of Python at a place that everybody may enter, with what the tests import."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    candidates = (os.path.realpath(sys.executable), f"/usr/bin/python{version}")
    python = next((path for path in candidates if everyone_reaches(path)), None)
    if python is None:
        pytest.skip("no Python that an unprivileged user can reach")
    if not everyone_reaches(sysconfig.get_path("purelib")):
        pytest.skip("the virtual environment is closed to other users")
    return python


def everyone_reaches(place: str) -> bool:
    path = Path(place)
    return path.exists() and all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
