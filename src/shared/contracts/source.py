"""Where in the code a contract is declared, and a field of its payload."""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from shared.contracts.schema_diff import STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from shared.events.contract import Contract


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file; `name` is what is declared there, if it has a name of its own."""

    file: Path
    line: int
    name: str = ""

    def __str__(self) -> str:
        here = Path.cwd()
        shown = self.file.relative_to(here) if self.file.is_relative_to(here) else self.file
        return f"{shown}:{self.line}"


def place_of_contract(contract: Contract[Any]) -> Place | None:
    """Return where a module that is loaded declares the contract by name; None without."""
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file is None or not file.endswith(".py"):
            continue
        names = [name for name, value in vars(module).copy().items() if value is contract]
        tree = _tree(Path(file)) if names else None
        if tree is None:
            continue
        for statement in tree.body:  # elsewhere the name is imported
            if isinstance(statement, ast.Assign | ast.AnnAssign):
                found = [name for name in _targets(statement) if name in names]
                if found:
                    return Place(Path(file), statement.lineno, found[0])
    return None


def place_of_field(model: type[BaseModel], path: Sequence[str]) -> Place | None:
    """Return where the field that `path` leads to is declared, else what comes nearest."""
    owner, name = model, ""
    models = [model]
    for step in path:
        if step in STEPS:
            continue
        found = [(each, _named(each, step)) for each in models]
        named = [(each, field) for each, field in found if field]
        if not named:  # it is gone: the class that had it
            owner, name = (models[0], "") if models else (owner, name)
            break
        owner, name = named[0]
        models = list(_models_in(owner.model_fields[name].annotation))
    return _in_class(owner, name)


def _named(model: type[BaseModel], step: str) -> str:
    for name, info in model.model_fields.items():
        aliases = {info.alias, info.validation_alias, info.serialization_alias}
        if step == name or step in {alias for alias in aliases if isinstance(alias, str)}:
            return name
    return ""


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)


def _in_class(model: type[BaseModel], field: str) -> Place | None:
    """Return the line of a field, which a base may declare; of the class if it has none."""
    for owner in model.__mro__:
        found = _class(owner)
        if found is None:
            continue
        file, node = found
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and field in _targets(statement):
                return Place(file, statement.lineno, field)
        if owner is model and not field:
            break
    found = _class(model)
    return Place(found[0], found[1].lineno, model.__name__) if found is not None else None


def _class(owner: type[Any]) -> tuple[Path, ast.ClassDef] | None:
    """Return the source of a class: the last of its name in its file, as it is run."""
    try:
        file = inspect.getsourcefile(owner)
    except TypeError:
        return None
    tree = _tree(Path(file)) if file is not None else None
    if file is None or tree is None:
        return None
    name = owner.__name__.partition("[")[0]
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name]
    return (Path(file), nodes[-1]) if nodes else None


def _targets(statement: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


@cache
def _tree(file: Path) -> ast.Module | None:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
