"""What runs here: version, build, libraries, and where each setting comes from."""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata

from fastapi import APIRouter
from pydantic import BaseModel, Field

from shared.api.models import ApiResponse
from shared.api.responses import success_response
from shared.config import Setting

_LIBRARIES = ("glam-shared", "fastapi", "nats-py", "sqlalchemy")


class Build(BaseModel):
    """What the code was built from, as far as the build said."""

    revision: str | None = Field(default=None, exclude_if=lambda value: value is None)
    time: str | None = Field(default=None, exclude_if=lambda value: value is None)


class Info(BaseModel):
    """A service, as it runs."""

    service: str
    version: str
    build: Build
    versions: dict[str, str]
    started: datetime
    uptime_seconds: float
    configuration: list[Setting]


def create_info_router(
    service_name: str,
    *,
    version: str,
    configuration: Sequence[Setting] = (),
    environ: Mapping[str, str] | None = None,
) -> APIRouter:
    """Make the route ``GET /info``. Include it under the service's prefix.

    Everything but the uptime, which counts from this call, is gathered here and once. The build is
    what the variables ``GLAM_BUILD_REVISION`` and ``GLAM_BUILD_TIME`` say.

    Args:
        service_name: the service's name.
        version: the service's own version.
        configuration: the settings to show, as `shared.config.explain` gives them: secrets masked.
        environ: the variables to read instead of those of the process.
    """
    environ = os.environ if environ is None else environ
    build = Build(
        revision=environ.get("GLAM_BUILD_REVISION") or None,
        time=environ.get("GLAM_BUILD_TIME") or None,
    )
    versions = {"python": platform.python_version(), **_installed()}
    started, begun = datetime.now(UTC), time.monotonic()
    router = APIRouter(tags=["operations"])

    @router.get("/info")
    async def info() -> ApiResponse[Info]:
        """Say what runs here."""
        return success_response(
            Info(
                service=service_name,
                version=version,
                build=build,
                versions=versions,
                started=started,
                uptime_seconds=round(time.monotonic() - begun, 3),
                configuration=list(configuration),
            )
        )

    return router


def _installed() -> dict[str, str]:
    found = {}
    for library in _LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue  # it runs from a bare source tree
    return found
