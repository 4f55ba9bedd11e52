import sys
from pathlib import Path

import httpx
import psutil
import pytest

from shared.dev import ProcessError, ServiceProcess
from shared.dev.server import free_port
from tests.dev.probes import is_free


def web_server(port: int, log_file: Path) -> ServiceProcess:
    return ServiceProcess(
        [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)],
        name="web",
        log_file=log_file,
        ready_url=f"http://127.0.0.1:{port}/",
    )


async def test_a_service_is_up_when_its_address_answers(tmp_path: Path) -> None:
    port = free_port()
    async with web_server(port, tmp_path / "web.log") as service, httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/")).is_success
        pid = service.pid
        await service.kill()
        assert service.returncode == -9
        assert is_free(port)
        await service.restart()
        assert service.pid != pid
        assert (await client.get(f"http://127.0.0.1:{port}/")).is_success
    assert is_free(port)


async def test_a_module_runs_with_our_python_and_the_given_environment(tmp_path: Path) -> None:
    (tmp_path / "little.py").write_text("import os; print('hello', os.environ['LITTLE_NAME'])")
    log = tmp_path / "little.log"
    service = ServiceProcess("little", env={"LITTLE_NAME": "world"}, cwd=tmp_path, log_file=log)
    await service.start()
    assert await service.wait(timeout_seconds=30) == 0
    assert log.read_text() == "hello world\n"


async def test_a_service_that_ends_is_told_with_its_last_words(tmp_path: Path) -> None:
    service = ServiceProcess(
        [sys.executable, "-c", "raise SystemExit('no database')"],
        name="broken",
        log_file=tmp_path / "broken.log",
        ready_url=f"http://127.0.0.1:{free_port()}/",
    )
    with pytest.raises(ProcessError, match=r"broken ended with 1\nno database"):
        await service.start()


async def test_a_service_that_does_not_listen_to_sigterm_is_killed_after_the_grace(
    tmp_path: Path,
) -> None:
    log = tmp_path / "deaf.log"
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('no'))\n"
        "print('up')\n"
        "while True: time.sleep(1)"
    )
    service = ServiceProcess([sys.executable, "-uc", code], log_file=log, stop_timeout_seconds=0.2)
    await service.start()
    while log.read_text() != "up\n":
        await service_tick(service)
    await service.stop()
    assert service.returncode == -9
    assert log.read_text() == "up\nno\n"


async def test_a_kill_takes_the_grandchildren_along(tmp_path: Path) -> None:
    log = tmp_path / "family.log"
    grandchild = "import time; time.sleep(60)"
    code = (
        "import subprocess, sys;"
        f"p = subprocess.Popen([sys.executable, '-c', {grandchild!r}], start_new_session=True);"
        "print(p.pid, flush=True); p.wait()"
    )
    service = ServiceProcess([sys.executable, "-c", code], log_file=log)
    await service.start()
    while not log.read_text().endswith("\n"):
        await service_tick(service)
    pid = int(log.read_text())
    assert psutil.pid_exists(pid)
    await service.kill()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


async def test_a_command_that_does_not_exist_is_told(tmp_path: Path) -> None:
    service = ServiceProcess(["/no/such/command"], log_file=tmp_path / "none.log")
    await service.start()
    assert await service.wait(timeout_seconds=30) == 1
    assert "No such file or directory" in (tmp_path / "none.log").read_text()


async def test_a_wait_without_a_start_and_one_too_long_are_told(tmp_path: Path) -> None:
    service = ServiceProcess([sys.executable, "-c", "import time; time.sleep(60)"], name="slow")
    with pytest.raises(ProcessError, match="slow was never started"):
        await service.wait()
    async with service:
        with pytest.raises(TimeoutError, match="slow still runs"):
            await service.wait(timeout_seconds=0.05)


async def service_tick(service: ServiceProcess) -> None:
    with pytest.raises(TimeoutError):
        await service.wait(timeout_seconds=0.01)
