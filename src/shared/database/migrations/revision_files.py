"""Revision files read as text: none of them is run, and Alembic is not needed."""

from __future__ import annotations

import ast
from importlib.util import find_spec
from pathlib import Path

_MORE_THAN_A_LINE = ("branch_labels", "depends_on")


def revisions_folder(migrations: Path | str) -> Path:
    """Return the folder that holds the revision files.

    Raises:
        FileNotFoundError: no such folder or package.
    """
    folder = _root(migrations)
    return folder / "versions" if (folder / "versions").is_dir() else folder


def revision_files(folder: Path) -> list[Path]:
    """Return the files of a folder that Alembic reads as revisions."""
    return [path for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]


def read_revision(tree: ast.Module) -> str | None:
    """Return the revision that a file's text names."""
    for name, value in _assignments(tree):
        if name == "revision" and isinstance(value, ast.Constant) and isinstance(value.value, str):
            return value.value
    return None


def newest_revision(folder: Path) -> str | None:
    """Return the newest of a folder's revisions, if they are seen to make one line.

    `None` says no more than that Alembic has to be asked: a file that does not compile or says
    something else than plain ids, branches, two newest revisions, a step that is missing.
    """
    after: dict[str, str | None] = {}
    for path in revision_files(folder):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError):
            return None
        ids = _ids(tree)
        if ids is None or ids[0] in after:
            return None
        after[ids[0]] = ids[1]
    newest = after.keys() - after.values()
    if len(newest) != 1 or not after.keys() >= set(after.values()) - {None}:
        return None
    return newest.pop()


def _ids(tree: ast.Module) -> tuple[str, str | None] | None:
    """Return a file's revision and the one it follows, if each is written down once, as text."""
    written: dict[str, object] = {}
    for name, value in _assignments(tree):
        written[name] = value.value if isinstance(value, ast.Constant) else value
    names = ("revision", "down_revision", *_MORE_THAN_A_LINE)
    stored = [
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id in names
    ]
    revision, down = written.get("revision"), written.get("down_revision", False)
    if (
        len(stored) != len(set(stored))
        or not isinstance(revision, str)
        or not (down is None or isinstance(down, str))
        or any(written.get(name) is not None for name in _MORE_THAN_A_LINE)
    ):
        return None
    return revision, down


def _assignments(tree: ast.Module) -> list[tuple[str, ast.expr | None]]:
    """Return what names are given in a module's own lines."""
    found: list[tuple[str, ast.expr | None]] = []
    for node in tree.body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        found += [(target.id, node.value) for target in targets if isinstance(target, ast.Name)]
    return found


def _root(migrations: Path | str) -> Path:
    if isinstance(migrations, Path) or "/" in migrations:
        folder = Path(migrations)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder of migrations")
        return folder.absolute()
    try:
        spec = find_spec(migrations)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"{migrations!r} is not a package of migrations")
    return Path(next(iter(spec.submodule_search_locations)))
