"""The package itself: `import shared` promises a version and its floors, and loads none."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import shared


def test_the_version_is_the_installed_one() -> None:
    assert shared.__version__ == version("glam-shared")


def test_a_floor_is_loaded_when_its_name_is_used() -> None:
    code = """
import sys, shared
assert not [name for name in sys.modules if name.startswith("shared.")]
assert shared.errors.NotFoundError.status == 404
assert "shared.errors" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_all_names_are_offered_and_no_others() -> None:
    assert set(shared.__all__) <= set(dir(shared))
    assert shared.__all__ == sorted(shared.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        shared.nonsense  # noqa: B018
