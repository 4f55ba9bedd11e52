"""The examples of the how-to and of the tutorial run as printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]


def test_the_suite_of_the_how_to_runs_as_printed(tmp_path: Path) -> None:
    chapter = (ROOT / "docs" / "how-to.md").read_text().partition("## Prove that a handler")[2]
    found = re.search(r"```python\n(.*?)```", chapter, re.DOTALL)
    assert found is not None
    (tmp_path / "test_example.py").write_text(found[1])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"),
            *("-p", "no:schemathesis"),  # seconds of import, and not needed
            *("-o", "asyncio_mode=strict", "-o", f"pythonpath={ROOT}"),
            *("--rootdir", str(tmp_path), str(tmp_path), "-k", "delivered_twice or poison or kept"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_the_service_of_the_tutorial_is_tested_as_printed(tmp_path: Path) -> None:
    files = re.findall(
        r"`([\w/]+\.py)`[^\n]*:\n\n```python\n(.*?)```",
        (ROOT / "docs" / "tutorial.md").read_text(),
        re.DOTALL,
    )
    for name, text in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    done = subprocess.run(
        [*(sys.executable, "-m", "pytest", "-q"), *("-p", "no:schemathesis")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
