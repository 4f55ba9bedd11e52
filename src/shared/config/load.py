"""From the layers to the typed settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from shared.config.errors import ConfigError, Mistake
from shared.config.keys import Keys
from shared.config.layers import read_layers
from shared.config.place import find_root, inside_container, service_file
from shared.config.redaction import MASK, is_secret, redact, redact_text
from shared.config.settings import ServiceSettings
from shared.config.variables import prefix_of

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic_core import ErrorDetails

    from shared.config.entries import Entry
    from shared.config.entries import Path as Key

S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the settings, its value as text, masked if secret, and where it comes from."""

    key: str
    value: str
    origin: str
    """A file and line, a variable, or `default`."""


def load_settings(
    cls: type[S],
    service: str,
    *,
    env_prefix: str | None = None,
    root: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> S:
    """Read a service's settings from its files and variables.

    Every call reads anew. The service's own file may be missing.

    >>> class TillSettings(ServiceSettings):
    ...     currency: str = "EUR"
    >>> variables = {"TILL_DB_PORT": "6432", "TILL_CURRENCY": "USD"}
    >>> settings = load_settings(TillSettings, "till-service", root=root, environ=variables)
    >>> settings.database.port, settings.currency
    (6432, 'USD')

    Args:
        cls: the settings class.
        service: the service's name, which names its file: `config/services/<service>.yml`.
        env_prefix: the prefix of its variables; derived from the name unless given
            (`credit-service` -> `CREDIT`).
        root: the folder that holds `config/shared.yml`; looked for unless given.
        environ: the variables to read instead of those of the process.

    Raises:
        ConfigError: all mistakes together, each with its file and line or its variable.
    """
    return _Loading(cls, service, env_prefix, root, environ).settings()


def explain(
    cls: type[ServiceSettings],
    service: str,
    *,
    env_prefix: str | None = None,
    root: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[Setting]:
    """Say of each key what it is set to and by whom. Arguments and errors as `load_settings`."""
    return list(_Loading(cls, service, env_prefix, root, environ).explain())


class _Loading(Generic[S]):
    """One reading of one service's configuration."""

    def __init__(
        self,
        cls: type[S],
        service: str,
        env_prefix: str | None,
        root: Path | None,
        environ: Mapping[str, str] | None,
    ) -> None:
        self._cls = cls
        self._service = service
        self._prefix = (env_prefix or prefix_of(service)).rstrip("_")
        self._keys = Keys(cls)
        environ = os.environ if environ is None else environ
        read = read_layers(find_root(root, environ), service, self._prefix, environ, self._is_key)
        self._mistakes = read.mistakes
        self._values: dict[Key, Entry] = {}
        rank: dict[Key, int] = {}
        for number, layer in enumerate(read.layers):
            for path, entry in self._checked(layer).items():
                self._set(path, entry)
                rank[path] = number
        if not inside_container(environ):
            self._prefer_external_ports(rank)

    def settings(self) -> S:
        for entry in self._values.values():
            self._mistakes += [
                Mistake(entry.origin, f"{entry.key} needs the variable {name}, which is not set")
                for name in entry.unset
            ]
        unset = {path for path, entry in self._values.items() if entry.unset}
        nested: dict[str, Any] = {}
        for path, entry in self._values.items():
            _put(nested, path, entry.value)
        try:
            settings = self._cls.model_validate(nested, by_name=True, by_alias=True)
        except ValidationError as error:
            self._mistakes += [
                self._mistake(details)
                for details in error.errors(include_url=False)
                if self._path(details) not in unset
            ]
        if self._mistakes:
            raise ConfigError(self._service, self._mistakes)
        return settings

    def explain(self) -> Iterator[Setting]:
        for path, value in _leaves(self.settings(), ()):
            entry = self._entry(path)
            secret = self._keys.is_secret(path) or any(map(is_secret, path))
            shown = MASK if secret and value is not None else redact("", value)
            origin = entry.origin if entry else "default"
            yield Setting(".".join(path), _text(shown), origin)

    def _is_key(self, path: Key) -> bool:
        return self._keys.knows(self._keys.canonical(path))

    def _checked(self, layer: list[Entry]) -> dict[Key, Entry]:
        """Keep what concerns the settings, under its one spelling; note what is unknown."""
        kept: dict[Key, Entry] = {}
        for entry in layer:
            path = self._keys.canonical(entry.path)
            if self._keys.ignores(path):
                continue
            if not self._keys.knows(path):
                self._mistakes.append(self._unknown(entry))
                continue
            value = self._keys.parse(path, entry.value)
            before = kept.get(path)
            if before and before.variable and before.value != value and self._own(before, entry):
                problem = f"{'.'.join(path)} is also set by {before.origin}, to something else"
                self._mistakes.append(Mistake(entry.origin, problem))
            kept[path] = replace(entry, path=path, value=value)
        return kept

    def _own(self, *entries: Entry) -> bool:
        """Say whether all these variables are the service's, none the common one for all."""
        return all(entry.origin.split()[-1].startswith(f"{self._prefix}_") for entry in entries)

    def _unknown(self, entry: Entry) -> Mistake:
        if entry.variable:
            name = entry.origin.split()[-1]
            near, unknown = self._keys.nearest_variable(name, self._prefix), "unknown variable"
        else:
            near, unknown = self._keys.nearest(entry.path), f"unknown key {entry.key}"
        hint = f"; did you mean {near}?" if near else ""
        return Mistake(entry.origin, unknown + hint)

    def _set(self, path: Key, entry: Entry) -> None:
        """Put a value over those of the lower layers, the ones inside and around it included."""
        if entry.value is None and self._keys.is_section(path):
            return  # left empty in a file
        for other in [p for p in self._values if _inside(p, path) or _inside(path, p)]:
            del self._values[other]
        self._values[path] = entry

    def _prefer_external_ports(self, rank: Mapping[Key, int]) -> None:
        """Outside a container `external_port` is the port, unless a higher layer sets `port`."""
        for section in ("api", "database"):
            port, external = (section, "port"), (section, "external_port")
            entry = self._values.get(external)
            if entry and entry.value is not None and rank[external] >= rank.get(port, -1):
                self._values[port] = replace(entry, path=port)

    def _entry(self, path: Key) -> Entry | None:
        for length in range(len(path), 0, -1):
            if entry := self._values.get(path[:length]):
                return entry
        return next((entry for p, entry in self._values.items() if _inside(p, path)), None)

    def _path(self, details: ErrorDetails) -> Key:
        # A rule over several keys stands at the root, and says which of them it is about.
        named = details.get("ctx", {}).get("setting", "")
        location = details["loc"] or tuple(filter(None, named.split(".")))
        return self._keys.canonical(tuple(map(str, location))) if location else ()

    def _mistake(self, details: ErrorDetails) -> Mistake:
        path = self._path(details)
        if details["type"] == "missing":
            variable = f"{self._prefix}_{'__'.join(path).upper()}"
            file = service_file(self._service)
            return Mistake("", f"{'.'.join(path)} is missing: set it in {file} or as {variable}")
        entry = self._entry(path) if path else None
        message = redact_text(details["msg"].removeprefix("Value error, "))
        if details["type"] == "too_short" and self._keys.is_secret(path):
            message = f"at least {details['ctx']['min_length']} characters are needed"
        key = f"{'.'.join(path)}: " if path else ""
        return Mistake(entry.origin if entry else "", key + message)


def _inside(path: Key, outer: Key) -> bool:
    return len(path) > len(outer) and path[: len(outer)] == outer


def _put(nested: dict[str, Any], path: Key, value: object) -> None:
    for step in path[:-1]:
        nested = nested.setdefault(step, {})
    nested[path[-1]] = value


def _leaves(value: object, path: Key) -> Iterator[tuple[Key, object]]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _leaves(getattr(value, name), (*path, name))
    elif isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, str(key)))
    else:
        yield path, value


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)
