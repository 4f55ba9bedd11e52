"""The layers of the configuration, lowest first.

    config/shared.yml < config/services/<service>.yml < .env < environment

A `.env` may lie at the root and in the working directory, if that is below the root; the nearer one
goes before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared.config.documents import Document
from shared.config.place import SHARED_FILE, service_file
from shared.config.variables import Variables, near_prefixes, read_dotenv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shared.config.entries import Entry
    from shared.config.entries import Path as Key
    from shared.config.errors import Mistake


@dataclass(frozen=True, slots=True)
class Layers:
    """What was read, layer by layer, and the mistakes in its writing."""

    layers: list[list[Entry]]
    mistakes: list[Mistake]


def read_layers(
    root: Path,
    service: str,
    prefix: str,
    environ: Mapping[str, str],
    is_key: Callable[[Key], bool],
) -> Layers:
    """Read all layers of one service. A file that does not exist is an empty layer."""
    mistakes: list[Mistake] = []
    dotenv: list[tuple[dict[str, str], dict[str, str]]] = []
    variables: dict[str, str] = {}
    for file in _dotenv_files(root):
        values, places, wrong = read_dotenv(file, _name(file, root), {**variables, **environ})
        mistakes += wrong
        dotenv.append((values, places))
        variables |= values
    variables |= environ

    layers: list[list[Entry]] = []
    for path in (SHARED_FILE, service_file(service)):
        if (root / path).is_file():
            document = Document(root / path, str(path), variables)
            layers.append(document.entries)
            mistakes += document.mistakes

    stems = (file.stem for file in (root / "config" / "services").glob("*.yml"))
    siblings = near_prefixes(prefix, stems)
    for values, places in dotenv:
        found = Variables(
            values, prefix=prefix, siblings=siblings, is_key=is_key, where=places.__getitem__
        )
        layers.append(found.entries)
        mistakes += found.mistakes
    found = Variables(environ, prefix=prefix, siblings=siblings, is_key=is_key)
    layers.append(found.entries)
    mistakes += found.mistakes
    return Layers(layers, mistakes)


def _dotenv_files(root: Path) -> list[Path]:
    here = Path.cwd().resolve()
    folders = [root] if here == root or not here.is_relative_to(root) else [root, here]
    return [folder / ".env" for folder in folders if (folder / ".env").is_file()]


def _name(file: Path, root: Path) -> str:
    return str(file.relative_to(root)) if file.is_relative_to(root) else str(file)
