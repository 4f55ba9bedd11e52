"""The example of the how-to runs as printed."""

import re
import subprocess
import sys
from pathlib import Path

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
