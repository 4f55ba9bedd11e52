"""YAML files, read with the line of every value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from shared.config.entries import Entry
from shared.config.errors import Mistake
from shared.config.substitution import substitute

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from shared.config.entries import Path as Key


class Document:
    """The entries of one YAML file, in its order, and the mistakes in its writing.

    An empty file has no entries. A file that is not YAML has one mistake and no entries.
    """

    def __init__(self, file: Path, name: str, variables: Mapping[str, str]) -> None:
        self.entries: list[Entry] = []
        self.mistakes: list[Mistake] = []
        self._name = name
        self._variables = variables
        self._checked: set[int] = set()
        try:
            self._loader = yaml.SafeLoader(file.read_bytes())
            node = self._loader.get_single_node()
            if node is not None:
                self._read_top(node)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.mistakes.append(Mistake(f"{name}:{line}", f"not YAML: {error.problem}"))
        except yaml.YAMLError as error:
            self.mistakes.append(Mistake(name, f"not YAML: {error}"))

    def _read_top(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            self.entries.extend(self._walk((), node))
        elif self._loader.construct_object(node, deep=True) is not None:
            self.mistakes.append(Mistake(self._where(node), "not a mapping of keys to values"))

    def _walk(self, path: Key, node: yaml.MappingNode) -> Iterator[Entry]:
        self._refuse_duplicates(path, node)
        self._loader.flatten_mapping(node)  # resolves `<<`; a key of the mapping's own comes last
        pairs = {str(key_node.value): (key_node, value_node) for key_node, value_node in node.value}
        for name, (
            key_node,
            value_node,
        ) in pairs.items():  # the name as written: `on` is not a boolean
            inner = (*path, name)
            if isinstance(value_node, yaml.MappingNode) and value_node.value:
                yield from self._walk(inner, value_node)
            else:
                missing: list[str] = []
                value = self._fill(self._loader.construct_object(value_node, deep=True), missing)
                yield Entry(inner, value, self._where(key_node), unset=tuple(missing))

    def _refuse_duplicates(self, path: Key, node: yaml.MappingNode) -> None:
        if id(node) in self._checked:  # an alias; `<<` has since put foreign keys into the node
            return
        self._checked.add(id(node))
        lines: dict[str, int] = {}
        for key_node, _ in node.value:
            name = str(key_node.value)
            if name in lines:
                dotted = ".".join((*path, name))
                problem = f"{dotted} is already set in line {lines[name]}"
                self.mistakes.append(Mistake(self._where(key_node), problem))
            lines.setdefault(name, key_node.start_mark.line + 1)

    def _fill(self, value: object, missing: list[str]) -> object:
        if isinstance(value, str):
            text, unset = substitute(value, self._variables)
            missing.extend(unset)
            return text
        if isinstance(value, list):
            return [self._fill(item, missing) for item in value]
        if isinstance(value, dict):
            return {key: self._fill(item, missing) for key, item in value.items()}
        return value

    def _where(self, node: yaml.Node) -> str:
        return f"{self._name}:{node.start_mark.line + 1}"
