"""`glam` says when `shared` is another's."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


def ran(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("file", ["shared/__init__.py", "shared.py"])
def test_a_folder_or_file_of_that_name_is_told_in_one_sentence(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    told = ran(tmp_path, "-m", "glam_start", "--help")
    assert told.returncode == 1
    (sentence,) = told.stderr.splitlines()
    shown = tmp_path / file.removesuffix("/__init__.py")
    assert sentence.startswith(f"Error: 'import shared' finds {shown}, which is not glam-shared")
    assert "rename it" in sentence


def test_what_another_distribution_installed_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "__init__.py").write_text("")
    info = tmp_path / "commons-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: commons\nVersion: 1.0\n")
    (info / "RECORD").write_text("shared/__init__.py,,\n")
    told = ran(tmp_path, "-m", "glam_start", "--help")
    assert told.returncode == 1
    assert "which commons installed over ours: pip uninstall commons, then" in told.stderr


def test_pytest_says_so_too_and_an_own_tree_runs(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(smtp_sink): ...\n")
    assert ran(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider").returncode == 0
    (tmp_path / "shared.py").write_text("")
    told = ran(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert told.returncode == 4
    assert "'import shared' finds" in told.stdout + told.stderr
    assert "Traceback" not in told.stdout + told.stderr


def test_glam_itself_starts(tmp_path: Path) -> None:
    assert "contracts" in ran(tmp_path, "-m", "glam_start", "--help").stdout
