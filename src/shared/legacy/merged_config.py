"""The configuration as plain dictionaries, for services that bring their own model."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import yaml

from shared.config.errors import ConfigError
from shared.config.layers import read_layers
from shared.config.place import find_root, service_file
from shared.config.variables import SHORT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from shared.config.entries import Path as Key

_logger = logging.getLogger(__name__)


def merged_config(
    service: str,
    *,
    env_prefix: str,
    root: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Merge the layers of a service's configuration into one nested dictionary.

    The layers are those of `load_settings`, and so are the spellings of variables; a short one such
    as `CREDIT_DB_HOST` also sets the top-level key `db_host`, as it did in the first design.
    A variable is a text unless the files give its key a number or a boolean: then it is read as
    one. A `${VAR}` that is not set is left as it is, with a warning.

    Args:
        service: the stem of the service's file: `config/services/<service>.yml`.
        env_prefix: the prefix of its variables, with or without the underscore at the end.
        root: the folder that holds `config/shared.yml`; looked for unless given.
        environ: the variables to read instead of those of the process.

    Raises:
        FileNotFoundError: the service has no file.
        ConfigError: there is no root, or a file is not well written.
    """
    environ = os.environ if environ is None else environ
    folder = find_root(root, environ)
    file = folder / service_file(service)
    if not file.is_file():
        raise FileNotFoundError(f"no configuration of {service}: {file} does not exist")
    prefix = env_prefix.rstrip("_")
    read = read_layers(folder, service, prefix, environ, is_key=lambda _: True)
    if read.mistakes:
        raise ConfigError(service, read.mistakes)
    merged: dict[str, Any] = {}
    for entry in (entry for layer in read.layers for entry in layer):
        for name in entry.unset:
            _logger.warning("%s: %s: ${%s} is not set", entry.origin, entry.key, name)
        if entry.variable:
            _override(merged, entry.path, str(entry.value))
            name = entry.origin.split()[-1].removeprefix(f"{prefix}_")
            if name in SHORT and name.lower() != "_".join(entry.path):
                _override(merged, (name.lower(),), str(entry.value))
        else:
            _put(merged, entry.path, entry.value)
    return merged


def flatten_config(data: Mapping[str, Any], parent_key: str = "", sep: str = ".") -> dict[str, Any]:
    """Flatten nested dictionaries: `{"api": {"port": 1}}` -> `{"api.port": 1}`.

    Lists stay whole; an empty dictionary leaves no key.
    """
    flat: dict[str, Any] = {}
    for key, value in data.items():
        path = f"{parent_key}{sep}{key}" if parent_key else str(key)
        if isinstance(value, dict):
            flat |= flatten_config(value, path, sep)
        else:
            flat[path] = value
    return flat


def _override(merged: dict[str, Any], path: Key, text: str) -> None:
    value: object = text
    before = _get(merged, path)
    if isinstance(before, bool | int | float | list):
        try:
            read = yaml.safe_load(text)
        except yaml.YAMLError:
            read = text
        if isinstance(before, bool) == isinstance(read, bool) and isinstance(
            read, bool | int | float | list
        ):
            value = read
    _put(merged, path, value)


def _get(merged: Mapping[str, Any], path: Key) -> object:
    value: object = merged
    for step in path:
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def _put(merged: dict[str, Any], path: Key, value: object) -> None:
    for step in path[:-1]:
        inner = merged.get(step)
        if not isinstance(inner, dict):
            inner = merged[step] = {}
        merged = inner
    if not (value is None and isinstance(merged.get(path[-1]), dict)):
        merged[path[-1]] = value
