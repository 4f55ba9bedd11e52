"""Where ``glam`` starts: outside of `shared`, to see first that it is ours.

The import name `shared` is one that others may use as well: a folder of that name stands before
ours on the path, or another distribution overwrites it. What is imported then ends in an error
that says nothing of it.
"""

from __future__ import annotations

import sys
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

__all__ = ["main", "wrong_shared"]

_OURS = "glam-shared"  # stands in our shared/__init__.py


def main() -> None:
    """Run ``glam``, or say in one sentence which other `shared` was found, with status 1."""
    if sentence := wrong_shared():
        sys.exit(f"Error: {sentence}")
    from shared.cli import main as glam  # noqa: PLC0415 - it may be another one's

    glam()


def wrong_shared() -> str | None:
    """Return what is wrong with the `shared` that an import finds, and what to do; None if ours."""
    spec = find_spec("shared")
    if spec is None or spec.origin is None:
        return f"there is no package 'shared': pip install --force-reinstall {_OURS}"
    found = Path(spec.origin)
    if found.name == "__init__.py" and _OURS in found.read_text("utf-8", errors="replace"):
        return None
    if owner := _owner(found):
        return (
            f"'import shared' finds {found}, which {owner} installed over ours: "
            f"pip uninstall {owner}, then pip install --force-reinstall {_OURS}"
        )
    shown = found.parent if found.name == "__init__.py" else found
    return (
        f"'import shared' finds {shown}, which is not {_OURS}: rename it, or start where it is "
        "not on Python's path (the current folder, PYTHONPATH)"
    )


def _owner(file: Path) -> str | None:
    """Return the distribution, if another one than ours, that installed a file."""
    for distribution in distributions():
        for path in distribution.files or ():
            if path.name == file.name and Path(str(distribution.locate_file(path))) == file:
                name = distribution.metadata["Name"]
                if name != _OURS:
                    return name
    return None
