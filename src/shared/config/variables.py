"""The environment and `.env` files: how a variable's name says which key it sets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dotenv.parser import parse_stream

from shared.config.entries import Entry
from shared.config.errors import Mistake
from shared.config.substitution import substitute

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from shared.config.entries import Path as Key

SHORT: Mapping[str, Key] = {
    "DB_HOST": ("database", "host"),
    "DB_PORT": ("database", "port"),
    "DB_PORT_EXTERNAL": ("database", "external_port"),
    "DB_NAME": ("database", "name"),
    "DB_USER": ("database", "user"),
    "DB_PASSWORD": ("database", "password"),
    "DB_ENABLED": ("database", "enabled"),
    "DB_POOL_SIZE": ("database", "pool_size"),
    "DB_MAX_OVERFLOW": ("database", "max_overflow"),
    "DB_POOL_PRE_PING": ("database", "pool_pre_ping"),
    "DB_POOL_RECYCLE": ("database", "pool_recycle_seconds"),
    "DB_ECHO": ("database", "echo"),
    "DB_ASYNC_DRIVER": ("database", "async_driver"),
    "NATS_SERVERS": ("nats", "servers"),
    "NATS_USER": ("nats", "user"),
    "NATS_PASSWORD": ("nats", "password"),
    "NATS_TOKEN": ("nats", "token"),
    "LOG_LEVEL": ("logging", "level"),
}
"""Names after a service's prefix, beside `SECTION__KEY`."""

COMMON: Mapping[str, Key] = {
    "NATS_USER": ("nats", "user"),
    "NATS_PASSWORD": ("nats", "password"),
    "LOG_LEVEL": ("logging", "level"),
    "APP_ENV": ("environment",),
    "OTEL_EXPORTER_OTLP_ENDPOINT": ("tracing", "endpoint"),
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": ("tracing", "endpoint"),  # the later goes before
}
"""Names without a prefix, for all services; a service's own variable goes before."""

_FILE = "_FILE"

# What Kubernetes sets in each pod for a Service of the same name
# (https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables).
_SERVICE_LINK = re.compile(
    r"(SERVICE_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def prefix_of(service: str) -> str:
    """Derive a service's prefix: `credit-service` -> `CREDIT`, `catalog-ai` -> `CATALOG_AI`."""
    return service.removesuffix("-service").replace("-", "_").upper()


def path_of(name: str) -> Key:
    """Derive the key of a variable's name without its prefix: `API__PORT` -> `("api", "port")`."""
    return SHORT.get(name) or tuple(name.lower().split("__"))


class Variables:
    """The variables of one layer that concern one service, as entries.

    `<KEY>_FILE` names a file that holds the value (as orchestrators mount secrets), unless
    `is_key` says that the name with `_FILE` is a key itself. Names of `siblings`, the longer
    prefixes of other services, are theirs: `CATALOG_AI_DB_HOST` does not concern `CATALOG`.
    """

    def __init__(
        self,
        values: Mapping[str, str],
        *,
        prefix: str,
        siblings: Collection[str],
        is_key: Callable[[Key], bool],
        where: Callable[[str], str] = str,
    ) -> None:
        self.entries: list[Entry] = []
        self.mistakes: list[Mistake] = []
        self._is_key = is_key
        self._where = where
        foreign = tuple(f"{sibling}_" for sibling in siblings)
        in_kubernetes = "KUBERNETES_SERVICE_HOST" in values
        for name, path in COMMON.items():
            self._read(values, name, path)
        own = f"{prefix}_"
        for name in sorted(values):
            rest = name.removeprefix(own)
            if rest == name or not rest or name.startswith(foreign):
                continue
            path = path_of(rest)
            if not is_key(path):
                if in_kubernetes and _SERVICE_LINK.fullmatch(rest):
                    continue
                if rest.endswith(_FILE) and is_key(path_of(rest.removesuffix(_FILE))):
                    continue  # read beside the key it belongs to
            self.entries.append(Entry(path, values[name], where(name), variable=True))
        for name in sorted(values):
            rest = name.removeprefix(own)
            if rest != name and rest.endswith(_FILE) and not name.startswith(foreign):
                path = path_of(rest.removesuffix(_FILE))
                if is_key(path) and not is_key(path_of(rest)):
                    self._read_file(values, name, path)

    def _read(self, values: Mapping[str, str], name: str, path: Key) -> None:
        if name in values:
            self.entries.append(Entry(path, values[name], self._where(name), variable=True))
        if name + _FILE in values:
            self._read_file(values, name + _FILE, path)

    def _read_file(self, values: Mapping[str, str], name: str, path: Key) -> None:
        where = self._where(name)
        if name.removesuffix(_FILE) in values:
            problem = f"{name.removesuffix(_FILE)} is set as well; which of the two counts?"
            self.mistakes.append(Mistake(where, problem))
            return
        try:
            with open(values[name], encoding="utf-8") as file:  # noqa: PTH123 (a Path is no clearer)
                value = file.read().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            self.mistakes.append(Mistake(where, f"cannot read {values[name]}: {reason}"))
            return
        self.entries.append(Entry(path, value, where, variable=True))


def read_dotenv(
    file: Path, name: str, variables: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str], list[Mistake]]:
    """Read a `.env` file: its values, the place of each, and the lines that cannot be read.

    References are filled from `variables` and from the lines above. A name without `=` is no
    value.
    """
    values: dict[str, str] = {}
    places: dict[str, str] = {}
    mistakes: list[Mistake] = []
    with file.open(encoding="utf-8") as stream:
        for binding in parse_stream(stream):
            line = binding.original.line + _leading_lines(binding.original.string)
            if binding.error:
                mistakes.append(Mistake(f"{name}:{line}", "not NAME=value"))
            elif binding.key is not None and binding.value is not None:
                values[binding.key], _ = substitute(binding.value, {**values, **variables})
                places[binding.key] = f"{name}:{line} {binding.key}"
    return values, places, mistakes


def _leading_lines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


def near_prefixes(prefix: str, services: Iterator[str]) -> list[str]:
    """Pick the prefixes of other services that begin with this one."""
    return [near for near in map(prefix_of, services) if near.startswith(f"{prefix}_")]
