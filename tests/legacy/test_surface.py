"""Every public name of the first design is where it was, and is called as it was.

`surface.json` lists the names: module, name, and a signature or fields. Services import them from
these modules and call them this way.
"""

import ast
import enum
import importlib
import inspect
import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel

SURFACE: dict[str, dict[str, dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "surface.json").read_text()
)

# Three stacked middlewares of Starlette's base class became one pass of pure ASGI; pydantic's hook
# is called by pydantic.
NOT_BASES = {"BaseHTTPMiddleware"}
NOT_MEMBERS = {"dispatch", "model_post_init"}
# They are what the annotations of that time were written with, not what anybody calls.
NOT_VALUES = {"T", "ModelT", "CreateT", "UpdateT", "ResponseT", "InT", "PatchT", "OutT", "TData"}

NAMES = [(module, name) for module, names in SURFACE.items() for name in names]


class Parameter(NamedTuple):
    """One parameter as it was declared."""

    name: str
    optional: bool
    keyword_only: bool


def declared(signature: str) -> tuple[str, list[Parameter], set[str]]:
    """Read `@property async name(self, a: int, *, b: str = '') -> None`."""
    *words, rest = signature.partition("(")[0].split()
    decorators = {word for word in words if word.startswith("@")}
    code = "def " + rest + signature[signature.index("(") :].rstrip() + ": ..."
    function = ast.parse(code).body[0]
    assert isinstance(function, ast.FunctionDef)
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    found = [
        Parameter(argument.arg, optional=index >= required, keyword_only=False)
        for index, argument in enumerate(positional)
        if argument.arg not in {"self", "cls"}
    ]
    found += [
        Parameter(argument.arg, optional=default is not None, keyword_only=True)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return function.name, found, decorators


def assert_callable_as_before(function: Any, parameters: list[Parameter], *, bound: bool) -> None:
    """Bind a call with everything by position, one by keyword, and one with the least."""
    signature = inspect.signature(function)
    me = [] if bound else [None]
    positional = [parameter for parameter in parameters if not parameter.keyword_only]
    keywords = {p.name: None for p in parameters if p.keyword_only}
    by_position = signature.bind(*me, *(None for _ in positional), **keywords)
    signature.bind(*me, **{parameter.name: None for parameter in parameters})
    signature.bind(*me, **{p.name: None for p in parameters if not p.optional})
    named = [name for name in by_position.arguments if name not in {"self", "cls", "args"}]
    if "args" not in by_position.arguments:
        assert named[: len(positional)] == [parameter.name for parameter in positional]


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[f"{m}.{n}" for m, n in NAMES])
def test_name_is_there_and_called_as_before(module: str, name: str) -> None:
    fact = SURFACE[module][name]
    found = getattr(importlib.import_module(module), name)
    match fact["kind"]:
        case "re-export":
            assert found is getattr(importlib.import_module(f"{module}{fact['from']}"), name)
        case "function":
            _, parameters, _ = declared(fact["signature"])
            assert_callable_as_before(found, parameters, bound=True)
        case "class":
            assert_class(found, fact)
        case "value":
            assert found is not None or name in NOT_VALUES


def assert_class(found: type[Any], fact: dict[str, Any]) -> None:
    """Bases, members and fields are those of before, or more."""
    bases = {base.partition("[")[0].rpartition(".")[2] for base in fact["bases"]} - NOT_BASES
    assert bases <= {base.__name__ for base in found.__mro__}
    for member in fact["members"]:
        name, parameters, decorators = declared(member)
        if name in NOT_MEMBERS:
            continue
        attribute = inspect.getattr_static(found, name)
        if "@property" in decorators:
            assert isinstance(attribute, property) or not callable(attribute), name
        elif name == "__init__":
            assert_callable_as_before(found, parameters, bound=True)
        else:
            static = isinstance(attribute, classmethod | staticmethod)
            assert_callable_as_before(getattr(found, name), parameters, bound=static)
    for field in fact.get("fields", ()):
        assert_field(found, field)


def assert_field(found: type[Any], field: str) -> None:
    """The field exists; a constant has its value, and what was optional still is."""
    statement = ast.parse(field).body[0]
    if isinstance(statement, ast.AnnAssign):
        assert isinstance(statement.target, ast.Name)
        name, default = statement.target.id, statement.value
    else:
        assert isinstance(statement, ast.Assign)
        assert isinstance(statement.targets[0], ast.Name)
        name, default = statement.targets[0].id, statement.value
    if issubclass(found, BaseModel) and name in found.model_fields:
        described = found.model_fields[name]
        if isinstance(default, ast.Constant):
            assert described.get_default(call_default_factory=False) == default.value
        assert default is None or "Field(" in ast.unparse(default) or not described.is_required()
        return
    if name == "__slots__":
        return
    assert hasattr(found, name) or name in getattr(found, "__annotations__", {}), name
    if isinstance(default, ast.Constant) and hasattr(found, name):
        value = getattr(found, name)
        assert (value.value if isinstance(value, enum.Enum) else value) == default.value
