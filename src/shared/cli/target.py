"""Finding the service a command is about: ``module:attribute``, a module, or a file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from shared.events import Contract
    from shared.service import Service


LOCAL = "nats://127.0.0.1:4222"

DEVELOPMENT_DATA = Path(".glam")
"""Where `glam up` keeps its data, and the configuration of a project that has none."""

Target = Annotated[
    str, typer.Argument(help="services.credit, module:attribute or hello.py", metavar="SERVICE")
]
Targets = Annotated[
    list[str] | None,
    typer.Argument(
        help="Services; by default all of services/*/service.py.", metavar="[SERVICE]..."
    ),
]


def load_service(target: str) -> Service[Any]:
    """Return the service that ``target`` names.

    Where there is no configuration, its settings will be those that the last ``glam up`` wrote
    here: where its servers are.

    Args:
        target: ``services.credit`` (a package, whose module ``service`` is meant),
            ``services.credit.service:service`` or ``hello.py``. Without an attribute the module's
            only ``Service`` is taken.

    Raises:
        typer.BadParameter: nothing there, or more than one and none named.
    """
    from shared.service import Service  # noqa: PLC0415 - keeps `glam --help` quick

    _find_configuration()
    name, _, attribute = target.partition(":")
    module = _load_module(name)
    if attribute:
        found = getattr(module, attribute, None)
        if not isinstance(found, Service):
            raise typer.BadParameter(f"{name} has no Service called {attribute}")
        return found
    if hasattr(module, "__path__") and importlib.util.find_spec(f"{name}.service"):
        module = importlib.import_module(f"{name}.service")
    services = {id(v): v for v in vars(module).values() if isinstance(v, Service)}
    if len(services) != 1:
        count = "no Service" if not services else f"{len(services)} Services: name one after ':'"
        raise typer.BadParameter(f"{name} holds {count}")
    return next(iter(services.values()))


def discover_services(root: Path) -> list[str]:
    """Return the modules of the services kept as ``services/<name>/service.py`` below ``root``."""
    return sorted(f"services.{path.parent.name}" for path in root.glob("services/*/service.py"))


def services_meant(targets: Sequence[str] | None, example: str) -> list[str]:
    """Return the services that are named, else those kept here.

    Raises:
        typer.BadParameter: there are none; it tells to name one, as in ``example``.
    """
    if chosen := list(targets or discover_services(Path.cwd())):
        return chosen
    raise typer.BadParameter(f"no services/*/service.py here: name one, like {example}")


def declared_contracts(root: Path) -> tuple[Contract[Any], ...]:
    """Return the contracts that a project declares though no service of it may name them.

    They are those of the modules that ``pyproject.toml`` in `root` lists::

        [tool.glam]
        contracts = ["shop.contracts"]

    Raises:
        typer.BadParameter: no such module, or no contract in it.
    """
    from shared.events import Contract  # noqa: PLC0415 - keeps `glam --help` quick

    file = root / "pyproject.toml"
    if not file.is_file():
        return ()
    names = (
        tomllib.loads(file.read_text("utf-8")).get("tool", {}).get("glam", {}).get("contracts", ())
    )
    found: dict[Contract[Any], None] = {}
    for name in names:
        values = [
            each
            for value in vars(_load_module(name)).values()
            for each in (value if isinstance(value, tuple) else (value,))
            if isinstance(each, Contract)
        ]
        if not values:
            raise typer.BadParameter(f"{name} holds no Contract (tool.glam.contracts of {file})")
        found |= dict.fromkeys(values)
    return tuple(found)


def contracts_here() -> tuple[Contract[Any], ...]:
    """Return the contracts of the services below this folder, and those that it declares."""
    services = [load_service(target) for target in discover_services(Path.cwd())]
    spoken = [contract for service in services for contract in service.contracts]
    return tuple(dict.fromkeys([*spoken, *declared_contracts(Path.cwd())]))


def _find_configuration() -> None:
    from shared.config import ConfigError, find_root  # noqa: PLC0415
    from shared.config.place import ROOT_VARIABLE, SHARED_FILE  # noqa: PLC0415

    try:
        find_root(None, os.environ)
    except ConfigError:
        if ROOT_VARIABLE not in os.environ and (DEVELOPMENT_DATA / SHARED_FILE).is_file():
            os.environ[ROOT_VARIABLE] = str(DEVELOPMENT_DATA.resolve())


def _load_module(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if not name.endswith(".py"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and name.startswith(error.name):
                raise typer.BadParameter(f"there is no module {name} below {Path.cwd()}") from error
            raise
    path = Path(name)
    if not path.is_file():
        raise typer.BadParameter(f"there is no file {path.resolve()}")
    loaded = sys.modules.get(path.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(path.resolve()):
        return loaded  # twice, and its payloads would be other types the second time
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise typer.BadParameter(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
