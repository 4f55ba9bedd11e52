"""Where the configuration lies, and whether the process runs inside a container."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shared.config.errors import ConfigError, Mistake

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT_VARIABLE = "GLAM_CONFIG_ROOT"
CONTAINER_VARIABLE = "GLAM_IN_CONTAINER"
SHARED_FILE = Path("config", "shared.yml")


def service_file(service: str) -> Path:
    """Name the file of a service, relative to the root."""
    return Path("config", "services", f"{service}.yml")


def find_root(root: Path | None, environ: Mapping[str, str]) -> Path:
    """Find the folder that holds `config/shared.yml`.

    It is `root` if given, else the variable `GLAM_CONFIG_ROOT`, else the working directory or its
    nearest parent with that file. A root that was named is not searched beyond.

    Raises:
        ConfigError: there is no such file; the message names what was tried.
    """
    if root is not None:
        tried, candidates = "the argument root", [root]
    elif named := environ.get(ROOT_VARIABLE):
        tried, candidates = f"the variable {ROOT_VARIABLE}", [Path(named)]
    else:
        here = Path.cwd()
        tried, candidates = "the working directory and its parents", [here, *here.parents]
    for candidate in candidates:
        if (candidate / SHARED_FILE).is_file():
            return candidate.resolve()
    raise ConfigError(
        "no configuration",
        [
            Mistake(
                "",
                f"{SHARED_FILE} is not in {tried}: tried {', '.join(map(str, candidates))};"
                f" write it ('environment: dev' is enough), or set {ROOT_VARIABLE} to the folder"
                " that holds it",
            )
        ],
    )


def inside_container(environ: Mapping[str, str], *, filesystem: Path = Path("/")) -> bool:
    """Decide whether this process runs inside a container.

    `GLAM_IN_CONTAINER` decides if set (`1`, `true`, `yes` and `on` mean inside). Else the marks of
    Kubernetes (`KUBERNETES_SERVICE_HOST`), Docker (`/.dockerenv`) and Podman
    (`/run/.containerenv`) do.
    """
    decided = environ.get(CONTAINER_VARIABLE, "").strip().lower()
    if decided:
        return decided in {"1", "true", "yes", "on"}
    return (
        "KUBERNETES_SERVICE_HOST" in environ
        or (filesystem / ".dockerenv").exists()
        or (filesystem / "run" / ".containerenv").exists()
    )
