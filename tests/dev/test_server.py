import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.dev import NatsServer

pytestmark = pytest.mark.servers

OWNER = """
import asyncio, os, signal
from shared.dev import NatsServer

async def main():
    server = NatsServer()
    await server.start()
    print(server.data_dir, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_what_a_killed_owner_left_is_removed_by_the_next_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", OWNER],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    left = Path(done.stdout.strip())
    assert done.returncode == -9
    assert left.exists()
    async with NatsServer():
        assert left.exists()  # it changed a moment ago: its owner might be about to lock it
    long_ago = time.time() - 3600
    os.utime(left, (long_ago, long_ago))
    async with NatsServer() as server:
        assert not left.exists()
        os.utime(server.data_dir, (long_ago, long_ago))
        async with NatsServer():
            assert server.data_dir.exists()
    assert list(tmp_path.iterdir()) == []
